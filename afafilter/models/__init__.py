"""Models as data: what is assumed of a process, its observation and its start.

    dx = (A x + u) dt + B dw,   Q = B B^T;    z_k = C x(t_k - delay) + b + v_k,   v_k ~ N(0, R)

Linear SDEs, their discrete-time form, priors (proper, stationary, flat), ready-made models, process
noise with a known course in time, and the radial-tangential SDE, whose noise knows the direction of
the state.
"""
