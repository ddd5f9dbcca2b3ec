// Kernels of afafilter.kalman for several paths side by side.
#include "bind.h"
#include "lanes.h"

namespace afa {

PyMethodDef* lane_methods() {
    static PyMethodDef table[] = {
        bind<&filter_lanes>("filter_lanes", {CHAIN, "first(paths)<=N L0(paths,d,d) m0(paths,d) seen(paths,T,p) "
            "scale(paths,T) smooth z(paths,T,p) mean(paths,N,d) cov(paths,N,d,d) innovation(paths,T,p) S(paths,T,p,p) "
            "loglik(paths,T) ", LANE_MEMORY}),
        bind<&smooth_lanes>("smooth_lanes", {LANE_MEMORY, "last(paths)<=N mean(paths,N,d) cov(paths,N,d,d) Z0(paths,d,d) "
            "y0(paths,d)"}),
        bind<&lanes>("lanes", ""),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
