"""CIFAR-10 to 94 % against its rivals, with a narrower network: what two CPU cores can carry.

    SUPERCONV_DATA=/path/to/data python benchmarks/cifar94_rivals.py [--width 0.25] [--lrs 1,2,0.5] [--seeds 1]
        [--jobs 2] [--scale 1]

Recipe `cifar94` in everything but the width of its network: all of CIFAR-10, 16 epochs, batches of 1,024, Nesterov
momentum 0.85, label smoothing, an LR 64 times larger for BatchNorm's biases, mirror averaging in the test. The arms
are one linear cycle (`fit_superconv`), `fit_one_cycle` and multistep, in as many epochs, at the same LRs. The score is
the accuracy on the 10,000 test images; the first seed has the same initial weights and batches for all arms.

Each finished run is at once a line of results/cifar94_rivals.jsonl, so an interrupted study goes on where it stopped.
With `--width 1` it is the recipe's own network, an hour and a half on two cores for each run; `gpu.py rivals` is for a
GPU. With a scale below 1 nothing is kept.
"""
import argparse, time, warnings
from dataclasses import replace
from functools import partial
import torch
from superconv_fastai.recipes import nets, recipes
from superconv_fastai.runs import RunLog, run_jobs
from common import machine, results
from gpu import multistep_at, one_cycle_at, trained

airbench94 = nets['airbench94']
fits = dict(fit_superconv=None, fit_one_cycle=one_cycle_at, multistep=multistep_at)

def run(scale, width, arm, lr, seed):
    "Train once, evaluating after every fourth epoch: the curve and the accuracy at the end, in percent"
    warnings.simplefilter('ignore')
    nets['airbench94'] = partial(airbench94, width=width)
    r = recipes['cifar94']
    r = replace(r, lr_max=lr, lr_min=lr/r.div).scaled(scale)
    start = time.perf_counter()
    res = trained(r, seed, 'cpu', fits[arm] and partial(fits[arm], lr), 4)
    return dict(res, seconds=round(time.perf_counter()-start, 1), threads=torch.get_num_threads(),
                cpu=machine()['cpu'])

def main(args=None):
    ap = argparse.ArgumentParser()
    ap.add_argument('--width', type=float, default=.25, help="of the network, times the recipe's")
    ap.add_argument('--lrs', default='1,2,0.5', help='of all arms, in this order')
    ap.add_argument('--seeds', type=int, default=1)
    ap.add_argument('--jobs', type=int, default=2, help='processes of one thread each')
    ap.add_argument('--scale', type=float, default=1., help='share of images and steps')
    a = ap.parse_args(args)
    torch.set_num_threads(1)
    jobs = [(a.width,arm,float(lr),seed) for seed in range(a.seeds) for lr in a.lrs.split(',') for arm in fits]
    path = results/'cifar94_rivals.jsonl' if a.scale==1 else None
    with RunLog('study', path, dict(study='cifar94_rivals'), dict(machine=machine())) as log:
        todo = [o for o in jobs if o not in log.runs]
        for key,res in run_jobs(run, todo, a.jobs, (a.scale,)):
            log.add(key, res)
            print(time.strftime('%H:%M:%S'), *key, res['status'], res['accuracy'], f"{res['seconds']} s", flush=True)
    return log

if __name__=='__main__': main()
