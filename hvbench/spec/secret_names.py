"""Names of environment variables that hold what nobody should read: records and suites keep none of them. Pure."""

import re

SECRETS = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)(AUTH|COOKIE|KEY)(_|$)", re.IGNORECASE)
