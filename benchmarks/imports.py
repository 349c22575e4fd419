"""What `import superconv_fastai.all` adds to fastai.basics and fastai.callback.all: the median over
fresh processes.

Writes results/imports.json.
"""
import argparse, os, subprocess, sys
import numpy as np
from common import save_results

fastai = 'from fastai.basics import *; from fastai.callback.all import *'
ours = 'start = time.perf_counter(); import superconv_fastai.all; print(time.perf_counter()-start)'
code = f'import time; {fastai}; {ours}'

def added_seconds(env):
    "In a process of its own"
    command = [sys.executable, '-W', 'ignore', '-c', code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)

def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument('--repeats', type=int, default=10)
    a = ap.parse_args()
    env = {k:v for k,v in os.environ.items() if k!='PYTHONDONTWRITEBYTECODE'} # as installed: with bytecode
    added_seconds(env)
    ms = [1000*added_seconds(env) for _ in range(a.repeats)]
    print(f'import superconv_fastai.all after fastai: {np.median(ms):.1f} ms (median of {a.repeats} processes)')
    save_results('imports', dict(repeats=a.repeats, added_ms=np.median(ms)))

if __name__=='__main__': main()
