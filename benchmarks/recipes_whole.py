"""The papers' recipes at their own size: those that a CPU can carry.

    SUPERCONV_DATA=/path/to/data python benchmarks/recipes_whole.py [--names lenet-12,lenet-25] [--seeds 3]
        [--threads 1] [--scale 1]

MNIST with LeNet is the one row of the papers' tables that needs no GPU: 1,406 steps of 512 images are 14 to 32
minutes on one core. CIFAR-10 to 94 % (`cifar94`) takes about 85 minutes on two cores. Each finished run is a line of
results/recipes_whole.jsonl; results/recipes_whole.json has them all, with the published numbers beside them. A run of
one cycle that was interrupted goes on from its last epoch. Other names are those of `superconv recipes`; with a scale
below 1 nothing is kept.
"""
import argparse, warnings
from dataclasses import asdict
from superconv_fastai.recipes import *
from superconv_fastai.runs import RunLog
from common import processor, results, save_results
import torch

def run(name, seed, scale=1., resume=None):
    r = run_recipe(name, scale, seed, device='cpu', resume=resume if recipes[name].is_one_cycle else None)
    print(r, flush=True)
    return dict(accuracy=r.accuracy, epochs=r.epochs, status=r.status, seconds=round(r.seconds), cpu=processor(),
                threads=torch.get_num_threads())

def save(runs):
    "All finished runs, beside what was published"
    def row(name, seed, found):
        r = recipes[name]
        return dict(recipe=name, seed=seed, published=r.published, published_sd=r.published_sd, steps=r.steps,
                    settings=asdict(r), **found)
    columns = 'steps, training loss, held-out loss, held-out accuracy in percent, after each epoch'
    save_results('recipes_whole', dict(columns=columns, runs=[row(*k, r) for k,r in sorted(runs.items())]))

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--names', default='lenet-12')
    ap.add_argument('--seeds', type=int, default=3)
    ap.add_argument('--threads', type=int, default=1)
    ap.add_argument('--scale', type=float, default=1.)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    warnings.simplefilter('ignore')
    todo = [(name,seed) for name in a.names.split(',') for seed in range(a.seeds)]
    if a.scale<1: return [run(*o, a.scale) for o in todo]
    results.mkdir(exist_ok=True)
    with RunLog('study', results/'recipes_whole.jsonl', dict(study='recipes_whole')) as log:
        for o in todo:
            if o not in log.runs:
                unfinished = results/'{}_{}.pth'.format(*o)
                log.add(o, run(*o, resume=unfinished))
                unfinished.unlink(missing_ok=True)
            save(log.runs)

if __name__=='__main__': main()
