"""A service that loads one model, and a second one when it is told to; files in its folder are its orders.

    python attached_service.py FIRST SECOND HOW

``HOW`` says what the second load meets: ``free``, or ``lock``: its class's ``__init__`` waits until the file
``unlock`` is there.
"""

import os
import sys
import threading
import time

from transformers import AutoModelForCausalLM, LlamaForCausalLM

first, second, how = sys.argv[1:4]
held = threading.Lock()


class Held(LlamaForCausalLM):
    def __init__(self, config):
        with held:
            super().__init__(config)


def there(name, take=False):
    if not os.path.exists(name):
        return False
    if take:
        os.unlink(name)
    return True


def say(name):
    with open(name + ".new", "w") as file:
        file.write(str(time.monotonic_ns()))
    os.rename(name + ".new", name)


def unlock():
    while not there("unlock"):
        time.sleep(0.02)
    held.release()


def load():
    kind = Held if how == "lock" else AutoModelForCausalLM
    return kind.from_pretrained(second)


before = {
    name: value.__code__
    for name, value in vars(sys.modules["transformers.modeling_utils"]).items()
    if hasattr(value, "__code__")
}
AutoModelForCausalLM.from_pretrained(first)
if how == "lock":
    held.acquire()
    threading.Thread(target=unlock, name="unlocker", daemon=True).start()
say("ready")
number = 0
while not there("end"):
    if there("load", take=True):
        model = load()
        number += 1
        say(f"loaded-{number}")
    time.sleep(0.02)
after = vars(sys.modules["transformers.modeling_utils"])
print(len(list(model.parameters())), all(after[name].__code__ is code for name, code in before.items()))
