//! Due times: the times at which a rate's integral reaches 0, 1, 2, … (even spacing) or the sums of exponential gaps (Poisson).
