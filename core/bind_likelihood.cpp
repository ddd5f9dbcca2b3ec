// Kernels of afafilter.likelihood.
#include "bind.h"

namespace afa {

PyMethodDef* likelihood_methods() {
    static PyMethodDef table[] = {
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
