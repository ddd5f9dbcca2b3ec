// Kernels of models and simulation.
#include "bind.h"
#include "draw.h"

namespace afa {

PyMethodDef* model_methods() {
    static PyMethodDef table[] = {
        bind<&propagate>("propagate", "x(n,T,d) Phi(U,d,d) psi(U,d) root(U,d,d) which(T)"),
        bind<&observe>("observe", "z(n,T,p) x(n,times,d) seen(T) C(U,p,d) offset(U,p) root(U,p,p) which(T)"),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
