"""Kalman filter, Rauch-Tung-Striebel smoother and forecasts, in square-root form.

    predict   m <- Phi m + psi,   P <- Phi P Phi^T + V
    update    K = P C^T (C P C^T + R)^-1,   m <- m + K (z - C m - b),   P <- (I - K C) P
    smooth    G = P Phi^T P'^-1,   m <- m + G (m_s' - m'),   P <- P + G (P_s' - P') G^T

Observations, prior and queries lie on one timeline; flat starts are exact (Durbin & Koopman, 2012,
ch. 5); long series are cut into segments; robust weights divide R.
"""
