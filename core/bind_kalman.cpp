// Kernels of afafilter.kalman.
#include "bind.h"
#include "means.h"

namespace afa {

PyMethodDef* kalman_methods() {
    static PyMethodDef table[] = {
        bind<&filter_covariances>("filter_covariances", {CHAIN, "first<=N stop<=N L(d,d) seen(T,p) scale(T) smooth "
            "cov(N,d,d) S(T,p,p) ", GAINS}),
        bind<&smooth_covariances>("smooth_covariances", {"last<=N ", GAINS, "cov(N,d,d) Z(d,d)"}),
        bind<&filter_means>("filter_means", {CHAIN, "first<=N m(paths,d) ", GAINS, "z(paths,T,p) seen(T,p) mean(paths,N,d) "
            "innovation(paths,T,p) loglik(paths,T)"}),
        bind<&smooth_means>("smooth_means", {CHAIN, "last<=N ", GAINS, "innovation(paths,T,p) seen(T,p) mean(paths,N,d) "
            "xi(paths,d)"}),
        bind<&filter_series>("filter_series", {CHAIN, "first<=N L(d,d) m(paths,d) ", GIVEN, FILLED, GAINS, "Z(d,d) y(paths,d)"}),
        bind<&filter_whole>("filter_whole", {CHAIN, "root(d,d) start(d) smooth z(paths,T,p) ", FILLED, "doubts(2)"}),
        bind<&magnification>("magnification", "S(G,T,p,p) cfg(T)<C R(C,p,p) scale(g,T) z(paths,T,p) doubts(2)"),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
