"""`python -m ssl_ebm.data` finds or fetches Fashion-MNIST and says where it is."""

import sys

from ssl_ebm.data.datasets import main

if __name__ == "__main__":
    sys.exit(main())
