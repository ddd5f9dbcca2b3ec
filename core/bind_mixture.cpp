// Kernels of afafilter.kalman's mixture filter and stream.
#include "bind.h"
#include "mixture.h"
#include "stream.h"

namespace afa {

PyMethodDef* mixture_methods() {
    static PyMethodDef table[] = {
        bind<&filter_mixture>("filter_mixture", {CHAIN, "times(N) ", SIZES, "rate scale L(d,d) m(d) D(q,d) z(T,p) "
            "seen(T,p) ", MIXTURE_OUTPUT, MIXTURE_KEPT, "outcome(2)"}),
        bind<&step_filter>("step_filter", "moved F(d,d) b(d) root(d,d) H(p,d) off(p) R(p,p) z(p) L(d,d) m(d) cov(d,d) v(p) "
            "S(p,p) doubts(2)"),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
