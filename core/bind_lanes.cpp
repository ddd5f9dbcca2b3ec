// Kernels of afafilter.kalman for several paths side by side.
#include "bind.h"
#include "lanes.h"

namespace afa {

PyMethodDef* lane_methods() {
    static PyMethodDef table[] = {
        bind<&filter_lanes>("filter_lanes", {CHAIN, TRACKS, "nodes L0(paths,d,d) m0(paths,d) ", GIVEN_EACH, FILLED_EACH,
            LANE_MEMORY, "roots(paths,2,d,d) means(paths,2,d)"}),
        bind<&smooth_lanes>("smooth_lanes", {LANE_MEMORY, TRACKS, "nodes mean(all,N,d) cov(all,N,d,d) roots(paths,2,d,d) "
            "means(paths,2,d)"}),
        bind<&lanes>("lanes", ""),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
