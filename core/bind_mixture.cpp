// Kernel of afafilter.kalman's mixture filter.
#include <string>

#include "bind.h"
#include "mixture.h"

namespace afa {

PyMethodDef* mixture_methods() {
    static const std::string filter = std::string(CHAIN) + "times(N) " + SIZES +
                                      "rate scale L(d,d) m(d) D(q,d) z(T,p) seen(T,p) " + MIXTURE_OUTPUT + MIXTURE_KEPT + "outcome(2)";
    static PyMethodDef table[] = {
        bind<&filter_mixture>("filter_mixture", filter.c_str()),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
