// Kernels of afafilter.kalman's flat start and of afafilter.linalg's subspaces.
#include "bind.h"
#include "flat_start.h"
#include "flat_steps.h"

namespace afa {

PyMethodDef* flat_methods() {
    static constexpr Text chain = CHAIN, gains = GAINS, sizes = SIZES, kept = KEPT, paths = PATHS;
    static constexpr Text filter = chain + gains + "times(N) " + sizes +
                                      "L(d,d) m(paths,d) M(q,d) T(q,q) s(paths,q) seen(T,p) scale(T) z(paths,T,p) smooth P(N,d,d) "
                                      "S(T,p,p) mean(paths,N,d) innovation(paths,T,p) loglik(paths,T) " +
                                      kept + "error(q,d,d) peak(q,d) late(q,d) rotation(*) outcome(4) facts(4)";
    static constexpr Text smooth = chain + "last<N " + gains +
                                      "M(c,q,d) E(T,p,q) innovation(paths,T,p) seen(T,p) J(w,w) y(paths,w) mean(paths,N,d) "
                                      "P(N,d,d)";
    static constexpr Text carry = chain + "times(N) " + sizes + "from<=N start(r,d) error(r,d,d) peak(r,d) late(r,d) steps directions(k,r,d) tolerance(k,r,d)";
    static constexpr Text move = "F(k,d,d) tau(k) stamp(k) " + sizes + "directions(k,q,d) tolerance(k,q,d) growth(k,d) scaled";
    static constexpr Text see = "F(k,d,d) times(k) " + sizes + "H(p,d) seen(k,p) M(k,d,d) tolerance(k,d,d) count(k) rate(d) scaled";
    static constexpr Text predict = chain + "k<N tau stamp " + sizes + paths;
    static constexpr Text innovations = chain + "o<T z(paths,T,p) " + paths + "v(paths,p) S(paths,p,p) known(paths,p)";
    static constexpr Text update = chain + "o<T z(paths,T,p) seen(paths,p) scale(paths) " + paths + "loglik(paths) facts(3)";
    static PyMethodDef table[] = {
        bind<&filter_flat>("filter_flat", filter.c_str()),
        bind<&smooth_flat>("smooth_flat", smooth.c_str()),
        bind<&carry_open>("carry_open", carry.c_str()),
        bind<&add_delta>("add_delta", "M(k,q,d) T(k,q,q) s(n,k,q) count(k)<=q m(n,k,d) P(k,d,d)"),
        bind<&report_states>("report_states", "M(c,q,d) tolerance(c,q,d) T(c,q,q) s(paths,c,q) count(c)<=q smoothed mean(paths,N,d) "
                                              "P(N,d,d) given(paths,c,d) cov(c,d,d)"),
        bind<&report_innovations>("report_innovations", "obs(N)<T? stop<=N E(T,p,q) T(c,q,q) s(paths,c,q) count(k)<=q v(paths,T,p) "
                                                        "S(T,p,p)"),
        bind<&component_sizes>("component_sizes", "A(d,d) given block(d) unit(d) rate(d)"),
        bind<&observability>("observability", see.c_str()),
        bind<&rank_rounding>("rank_rounding", ""),
        bind<&rank_decayed>("rank_decayed", ""),
        bind<&move_directions>("move_directions", move.c_str()),
        bind<&predict_all>("predict_all", predict.c_str()),
        bind<&innovations_all>("innovations_all", innovations.c_str()),
        bind<&update_all>("update_all", update.c_str()),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
