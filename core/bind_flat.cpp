// Kernels of afafilter.kalman's flat start and of afafilter.linalg's subspaces.
#include "bind.h"
#include "flat_start.h"
#include "flat_steps.h"

namespace afa {

PyMethodDef* flat_methods() {
    static PyMethodDef table[] = {
        bind<&filter_flat>("filter_flat", {CHAIN, GAINS, "times(N) ", SIZES, FLAT_LAW, GIVEN, FILLED, KEPT, "error(q,d,d) peak(q,d) late(q,d) rotation(*) outcome(4) facts(4)"}),
        bind<&smooth_flat>("smooth_flat", {CHAIN, "last<N ", GAINS, "M(c,q,d) E(T,p,q) innovation(paths,T,p) seen(T,p) "
            "J(w,w) y(paths,w) mean(paths,N,d) P(N,d,d)"}),
        bind<&carry_open>("carry_open", {CHAIN, "times(N) ", SIZES, "from<=N start(r,d) error(r,d,d) peak(r,d) late(r,d) "
            "steps directions(k,r,d) tolerance(k,r,d)"}),
        bind<&add_delta>("add_delta", "M(k,q,d) T(k,q,q) s(n,k,q) count(k)<=q m(n,k,d) P(k,d,d)"),
        bind<&report_states>("report_states", "M(c,q,d) tolerance(c,q,d) T(c,q,q) s(paths,c,q) count(c)<=q smoothed "
            "mean(paths,N,d) "
                                              "P(N,d,d) given(paths,c,d) cov(c,d,d)"),
        bind<&report_innovations>("report_innovations", "obs(N)<T? stop<=N E(T,p,q) T(c,q,q) s(paths,c,q) count(k)<=q "
            "v(paths,T,p) "
                                                        "S(T,p,p)"),
        bind<&component_sizes>("component_sizes", "A(d,d) given block(d) unit(d) rate(d) growth(d)"),
        bind<&observability>("observability", {"F(k,d,d) times(k) ", SIZES, "H(p,d) seen(k,p) M(k,d,d) tolerance(k,d,d) "
            "count(k) rate(d) scaled turned"}),
        bind<&rank_rounding>("rank_rounding", ""),
        bind<&rank_decayed>("rank_decayed", ""),
        bind<&move_directions>("move_directions", {"F(k,d,d) tau(k) stamp(k) ", SIZES, "directions(k,q,d) tolerance(k,q,d) "
            "growth(k,d) scaled"}),
        bind<&predict_all>("predict_all", {CHAIN, "k<N tau stamp ", SIZES, PATHS}),
        bind<&innovations_all>("innovations_all", {CHAIN, "o<T z(paths,T,p) ", PATHS, "v(paths,p) S(paths,p,p) "
            "known(paths,p)"}),
        bind<&update_all>("update_all", {CHAIN, "o<T z(paths,T,p) seen(paths,p) scale(paths) ", SIZES, PATHS, "loglik(paths) "
            "facts(3)"}),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
