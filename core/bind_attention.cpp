// Kernels of afafilter.attention.
#include "bind.h"

namespace afa {

PyMethodDef* attention_methods() {
    static PyMethodDef table[] = {
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
