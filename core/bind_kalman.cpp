// Kernels of afafilter.kalman.
#include "bind.h"
#include "means.h"

namespace afa {

PyMethodDef* kalman_methods() {
    static constexpr Text chain = CHAIN, gains = GAINS;
    static constexpr Text covariances =
        chain + "first<=N stop<=N L(d,d) seen(T,p) scale(T) smooth cov(N,d,d) S(T,p,p) " + gains;
    static constexpr Text smoothed = "last<=N " + gains + "cov(N,d,d) Z(d,d)";
    static constexpr Text means = chain + "first<=N m(paths,d) " + gains +
                                     "z(paths,T,p) seen(T,p) mean(paths,N,d) innovation(paths,T,p) loglik(paths,T)";
    static constexpr Text series =
        chain + "first<=N L(d,d) m(paths,d) seen(T,p) scale(T) smooth z(paths,T,p) cov(N,d,d) S(T,p,p) mean(paths,N,d) "
                "innovation(paths,T,p) loglik(paths,T) " + gains + "Z(d,d) y(paths,d)";
    static constexpr Text whole =
        chain + "root(d,d) start(d) smooth z(paths,T,p) cov(N,d,d) S(T,p,p) mean(paths,N,d) innovation(paths,T,p) "
                "loglik(paths,T) least lost(1)";
    static constexpr Text back =
        chain + "last<=N " + gains + "innovation(paths,T,p) seen(T,p) mean(paths,N,d) xi(paths,d)";
    static PyMethodDef table[] = {
        bind<&filter_covariances>("filter_covariances", covariances.c_str()),
        bind<&smooth_covariances>("smooth_covariances", smoothed.c_str()),
        bind<&filter_means>("filter_means", means.c_str()),
        bind<&smooth_means>("smooth_means", back.c_str()),
        bind<&filter_series>("filter_series", series.c_str()),
        bind<&filter_whole>("filter_whole", whole.c_str()),
        bind<&least_certain>("least_certain", "S(G,T,p,p) cfg(T)<C R(C,p,p) scale(g,T) least"),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
