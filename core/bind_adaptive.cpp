// Kernels of afafilter.adaptive.
#include "bind.h"

namespace afa {

PyMethodDef* adaptive_methods() {
    static PyMethodDef table[] = {
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
