// Kernels of afafilter.likelihood.
#include "bind.h"
#include "likelihood_flat.h"

namespace afa {

PyMethodDef* likelihood_methods() {
    static constexpr Text sizes = SIZES;
    static constexpr Text chain = "F(U,d,d) b(U,d) V(U,d,d) index(T)<U H(C,p,d) off(C,p) R(C,p,p) cfg(T)<C mean(d) cov(d,d) "
                                     "flat(q,d) times(T) " + sizes + "root(*,d,d) ";
    static constexpr Text data = "z(T,p,n) seen(T,p) scale(T) ";
    static constexpr Text slopes = "gF(U,d,d) gb(U,d) gV(U,d,d) gH(C,p,d) goff(C,p) gR(C,p,p) gmean(d) gcov(d,d) gflat(q,d) ";
    static constexpr Text moments = "u(*,p,n) M(*,p,p) x(*,d,n) P(*,d,d) lag(*,d,d) ";
    static constexpr Text group = chain + data + "gradient " + slopes + moments + "value(4)";
    static constexpr Text sde = "A(d,d) Q(d,d) u(d) C(1,p,d) off(1,p) R(1,p,p) mean(d) cov(d,d) flat(q,d) steps(U) index(T)<U "
                                   "cfg(T)<1 times(T) " + data + "gradient(*) value(4)";
    static constexpr Text sdes = "A(S,d,d) Q(S,d,d) u(S,d) C(S,p,d) off(S,p) R(S,p,p) mean(S,d) cov(S,d,d) flat(q,d) steps(U) "
                                    "index(T)<U cfg(T)<1 times(T) which(S)<K z(K,T,p) seen(K,T,p) scale(T) gradient(S,G) value(S)";
    static PyMethodDef table[] = {
        bind<&loglik_group>("loglik_group", group.c_str()),
        bind<&loglik_sde>("loglik_sde", sde.c_str()),
        bind<&loglik_sdes>("loglik_sdes", sdes.c_str()),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
