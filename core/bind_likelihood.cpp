// Kernels of afafilter.likelihood and of the search of afafilter.learning.
#include "bind.h"
#include "likelihood_flat.h"
#include "search.h"

namespace afa {

PyMethodDef* likelihood_methods() {
    static PyMethodDef table[] = {
        bind<&loglik_group>("loglik_group", {"F(U,d,d) b(U,d) V(U,d,d) index(T)<U H(C,p,d) off(C,p) R(C,p,p) cfg(T)<C "
            "mean(d) cov(d,d) flat(q,d) times(T) ", SIZES, "root(*,d,d) z(T,p,n) seen(T,p) scale(T) gradient gF(U,d,d) "
            "gb(U,d) gV(U,d,d) gH(C,p,d) goff(C,p) gR(C,p,p) gmean(d) gcov(d,d) gflat(q,d) u(*,p,n) M(*,p,p) x(*,d,n) "
            "P(*,d,d) lag(*,d,d) value(4)"}),
        bind<&loglik_sdes>("loglik_sdes", {"models(S,W) flat(q,d) steps(U) index(T)<U cfg(T)<1 times(T) which(S)<K "
            "z(K,T,p,n) seen(K,T,p) scale(T) gradient(S,G) found(S,5)"}),
        bind<&search_on>("search_on", "theta(S,n) value(S) grad(S,n) trial(S,n) scale(S,n) lower(S,n) upper(S,n) room(S,R) "
            "tolerance which(M)<S begin f(M) g(M,n) going(M) moved(M)"),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
