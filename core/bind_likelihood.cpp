// Kernels of afafilter.likelihood.
#include "bind.h"
#include "likelihood_flat.h"

namespace afa {

PyMethodDef* likelihood_methods() {
    static PyMethodDef table[] = {
        bind<&loglik_group>("loglik_group", {"F(U,d,d) b(U,d) V(U,d,d) index(T)<U H(C,p,d) off(C,p) R(C,p,p) cfg(T)<C "
            "mean(d) cov(d,d) flat(q,d) times(T) ", SIZES, "root(*,d,d) z(T,p,n) seen(T,p) scale(T) gradient gF(U,d,d) "
            "gb(U,d) gV(U,d,d) gH(C,p,d) goff(C,p) gR(C,p,p) gmean(d) gcov(d,d) gflat(q,d) u(*,p,n) M(*,p,p) x(*,d,n) "
            "P(*,d,d) lag(*,d,d) value(4)"}),
        bind<&loglik_sde>("loglik_sde", {"A(d,d) Q(d,d) u(d) C(1,p,d) off(1,p) R(1,p,p) mean(d) cov(d,d) flat(q,d) "
            "steps(U) index(T)<U cfg(T)<1 times(T) z(T,p,n) seen(T,p) scale(T) gradient(*) value(4)"}),
        bind<&loglik_sdes>("loglik_sdes", {"A(S,d,d) Q(S,d,d) u(S,d) C(S,p,d) off(S,p) R(S,p,p) mean(S,d) cov(S,d,d) "
            "flat(q,d) steps(U) index(T)<U cfg(T)<1 times(T) which(S)<K z(K,T,p) seen(K,T,p) scale(T) gradient(S,G) "
            "value(S)"}),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
