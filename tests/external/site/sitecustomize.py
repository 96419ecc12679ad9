"""Scripts that joblib's tests start have our backend, too."""

from joblib import register_parallel_backend
from joblib_on_lender import Trusting

register_parallel_backend("lender", Trusting)
