"""What `import superconv_fastai.all` adds to fastai.basics and fastai.callback.all: medians over fresh processes, alternating.

Writes results/imports.json."""
import argparse, os, subprocess, sys
import numpy as np
from common import save_results

fastai = 'from fastai.basics import *; from fastai.callback.all import *'
code = f'import time; {fastai}; start = time.perf_counter(); import superconv_fastai.all; print(time.perf_counter()-start)'

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--repeats', type=int, default=10)
    args = p.parse_args()
    env = {k:v for k,v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'} # as installed: with bytecode
    run = lambda: subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True, capture_output=True, text=True, env=env).stdout
    run()
    ms = [1000*float(run()) for _ in range(args.repeats)]
    print(f'import superconv_fastai.all after fastai: {np.median(ms):.1f} ms (median of {args.repeats} processes)')
    save_results('imports', dict(repeats=args.repeats, added_ms=np.median(ms)))
