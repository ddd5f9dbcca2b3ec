// Kernels of models and simulation.
#include "bind.h"
#include "draw.h"
#include "transition.h"

namespace afa {

PyMethodDef* model_methods() {
    static PyMethodDef table[] = {
        bind<&propagate>("propagate", "x(n,T,d) Phi(U,d,d) psi(U,d) root(U,d,d) which(T)<U"),
        bind<&observe>("observe", "z(n,T,p) x(n,times,d) seen(T)<times C(U,p,d) offset(U,p) root(U,p,p) which(T)<U"),
        bind<&lower_roots>("lower_roots", "V(n,d,d) roots(n,d,d)"),
        bind<&from_base>("from_base", "coefficients(terms,*) r(n) base(n)<U Phi0(U,d,d) psi0(U,d) V0(U,d,d) "
                                      "Phi(n,d,d) psi(n,d) V(n,d,d) columns"),
        bind<&transitions>("transitions", "A(d,d) Q(d,d) u(d) steps(n) Phi(n,d,d) psi(n,d) V(n,d,d)"),
        bind<&transition_adjoint>("transition_adjoint", "A(d,d) Q(d,d) u(d) steps(n) gPhi(n,d,d) gpsi(n,d) gV(n,d,d) "
                                                        "gA(d,d) gQ(d,d) gu(d)"),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
