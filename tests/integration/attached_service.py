"""A service that loads a model, and others when it is told to: a file in its folder is an order.

    python attached_service.py FIRST

An order ``{"source": ..., "held": true}`` is a load; one that is held waits in its class's ``__init__`` until
the file ``unlock`` is there. ``done-N`` says what came of the load of this number; ``{}`` ends the service.
"""

import json
import os
import sys
import threading
import time

from transformers import AutoModelForCausalLM, LlamaForCausalLM

lock = threading.Lock()


class Held(LlamaForCausalLM):
    def __init__(self, config):
        with lock:
            super().__init__(config)


def taken(name):
    if not os.path.exists(name):
        return None
    with open(name) as file:
        text = file.read()
    os.unlink(name)
    return text


def say(name, text=""):
    with open(name + ".new", "w") as file:
        file.write(text)
    os.rename(name + ".new", name)


def unlock():
    while taken("unlock") is None:
        time.sleep(0.02)
    lock.release()


def load(source, held=False):
    if held:
        lock.acquire()
        threading.Thread(target=unlock, name="unlocker", daemon=True).start()
    kind = Held if held else AutoModelForCausalLM
    return kind.from_pretrained(source)


modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("transformers.m")]
functions = [value for module in modules for value in vars(module).values() if hasattr(value, "__code__")]
before = [function.__code__ for function in functions]
load(sys.argv[1])
say("ready")
number = 0
while True:
    order = taken("order")
    if order is None:
        time.sleep(0.02)
        continue
    asked = json.loads(order)
    if not asked:
        break
    number += 1
    try:
        said = str(len(list(load(**asked).parameters())))
    except Exception as error:
        said = type(error).__name__
    say(f"done-{number}", said)
pairs = zip(functions, before, strict=True)
changed = [function for function, code in pairs if function.__code__ is not code]
print(number, changed)
