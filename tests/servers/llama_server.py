"""llama.cpp's server with two slots of 8192 tokens: llama_server.py MODEL PORT"""

import sys
import threading

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = {"tiny"} if isinstance(params.model_alias, set) else ["tiny"]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[2])
params.n_parallel = 2
params.n_ctx = 2 * 8192
params.endpoint_slots = True
params.warmup = False
params.use_jinja = True
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
