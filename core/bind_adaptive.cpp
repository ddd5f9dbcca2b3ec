// Kernels of afafilter.adaptive.
#include "bind.h"
#include "dense.h"
#include "sweeps.h"

namespace afa {

constexpr const char *FLOW = "stamps(n) rate(d) unit_rate(d) phi(n,d,d) turn(n,d,d) back(n,d,d) root(n,d,d) ",
                     *CHANNELS = "rank(n)<=r C(n,r,d) inverse(*,d,d) echelon(K,n,r,d) rotation(*,n,r,r) change(*) ",
                     *QUERIES = "times(q) longest_lag(q) first(q)<=n split(q)<=n last(q)<=n turn_past(q,d,d) back_past(q,d,d) "
                                "root_past(q,d,d) turn_next(q,d,d) back_next(q,d,d) root_next(q,d,d) ",
                     *NODES = "F(T,d,d) V(T,d,d) H(T,r,d) rank(T)<=r first(q)<=T split(q)<=T last(q)<=T "
                              "Fq(q,d,d) Vq(q,d,d) Fn(q,d,d) Vn(q,d,d) ",
                     *RESULT = "a(P,q,d,m) B(P,q,d,d) L(P,q,d,d) tri(P,q,d,*)";

PyMethodDef* adaptive_methods() {
    static PyMethodDef table[] = {
        bind<&plain_triangles>("plain_triangles", {FLOW, CHANNELS, QUERIES, "reversed y(n,r,m) triangle(b,*,d,8)"}),
        bind<&pair_equations>("pair_equations", {FLOW, CHANNELS, QUERIES, "reversed low pairs(b,*,*,8)"}),
        bind<&pair_distances>("pair_distances", "pairs(b,n,*,8) y(P,n,r) rest(P,n) anchor(P,b,d,8) d2(P,b,n,8)"),
        bind<&weighted_triangles>("weighted_triangles", "pairs(b,n,*,8) y(P,n,r,m) root(P,b,n,8) triangle(P,b,*,8) d"),
        bind<&pair_shares>("pair_shares", "pairs(b,n,*,8) X(P,b,*,8) root(P,b,n,8) share(P,b,n,8) d"),
        bind<&pair_log_dets>("pair_log_dets", "pairs(b,n,*,8) unit(b,d,8) inverse(d,d) rank(n)<=d logs(b,n,8)"),
        bind<&sweep_shared>("sweep_shared", {NODES, "y(T,r,m) ", RESULT}),
        bind<&sweep_each>("sweep_each", {NODES, "y(P,T,r) low w(P,b,n,8) ", RESULT}),
        {nullptr, nullptr, 0, nullptr},
    };
    return table;
}

}  // namespace afa
