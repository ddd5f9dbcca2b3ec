// Kernels of afafilter.kalman.
#include "bind.h"

namespace afa {

PyMethodDef* kalman_methods() {
    static PyMethodDef table[] = {
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
