// Kernels of afafilter.attention.
#include "attention.h"
#include "bind.h"
#include "exponential.h"

namespace afa {

template <> struct TypeName<std::complex<double>> { static constexpr const char* value = "complex128"; };

// One text for both floating point types.
constexpr const char *OUTPUT_ROWS = "q(B,d) k(N,d) v(N,m) known(N,h) t_query(B) t(N) seen(B)<=N window omega(n) omega_out(o) "
                                    "decay value_decay process_var var_late var_early scale exponent beta causal query_late "
                                    "back value_back process_back late_back early_back scale_back exponent_back beta_back "
                                    "causal_back query_back sides log_tolerance log_peak out(B,m) precision(B,g)";
constexpr const char *ATTEND = "q(B,d) k(N,d) v(N,m) known(N,h) t_query(B) t(N) low(B)<=N high(B)<=N lead(B) num(B,m) den(B,g) "
                               "decay value_decay process_var var_late var_early scale exponent beta causal query_late "
                               "log_tolerance",
                     *PAIR_UP = "log_p(B,K) d2(B,K) q(B,d) k(K,d) t_query(B) t(K) "
                                "decay value_decay process_var var_late var_early scale exponent beta causal query_late",
                     *ROTATE = "t(N) omega(n) sign x(P,N,d) out(P,N,d)",
                     *FINISH = "out(B,m) precision(B,g) num(B,m) den(B,g) t(B) omega(n) lift(B) scale(B)",
                     *SWEEP = "rates(K) coefs(K) num_rate den_rate t(T) weight(T) signal(T,D) t_query(M) visible(M)<=T clock "
                              "num(D,K) den(K) num_out(M,D) den_out(M)";

PyMethodDef* attention_methods() {
    static PyMethodDef table[] = {
        bind<&attend<double>>("attend_float64", ATTEND),
        bind<&attend<float>>("attend_float32", ATTEND),
        bind<&output_rows<double>>("output_rows_float64", OUTPUT_ROWS),
        bind<&output_rows<float>>("output_rows_float32", OUTPUT_ROWS),
        bind<&pair_up<double>>("pair_up_float64", PAIR_UP),
        bind<&pair_up<float>>("pair_up_float32", PAIR_UP),
        bind<&rotate<double>>("rotate_float64", ROTATE),
        bind<&rotate<float>>("rotate_float32", ROTATE),
        bind<&finish<double>>("finish_float64", FINISH),
        bind<&finish<float>>("finish_float32", FINISH),
        bind<&sweep<double>>("sweep_float64", SWEEP),
        bind<&sweep<std::complex<double>>>("sweep_complex128", SWEEP),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
