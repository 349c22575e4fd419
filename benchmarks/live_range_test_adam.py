"""Does the range test of an adaptive optimizer find an LR that trains?

The networks of `live_range_test.py`, trained by fastai's Adam.

For each network: a range test with the default range (and up to two more with its own advice); and `fit_superconv` at
the LR that it recommends and at four LRs a half-decade apart, in the same number of epochs. Two seeds each.

Writes results/live_range_test_adam.json; `--data` and `--nets` choose rows, and keep the others. About 15 minutes on
one core."""
import argparse, json, math, os, warnings

import numpy as np, torch
from fastai.basics import *
from superconv_fastai.all import *
from superconv_fastai.data import digits, tensor_dls
from common import results, save_results
from live_range_test import accuracies, fashion, networks, range_test

lrs = (.003, .01, .03, .1)
epochs = {'digits':8, 'Fashion-MNIST':3}

def learner(data, net, bs, seed):
    set_seed(seed)
    return Learner(
        tensor_dls(*data, bs=bs, device='cpu'), net(), loss_func=CrossEntropyLossFlat(), opt_func=Adam, metrics=accuracy
    )

def study(data, net, n_epoch, bs, seeds, **kwargs):
    def make(seed): return learner(data, net, bs, seed)
    def trained(lr): return lr and accuracies(make, lambda l: l.fit_superconv(n_epoch, lr), seeds)
    res,calls = range_test(make, **kwargs)
    return dict(
        epochs=n_epoch,
        feasible=res.verdict.feasible,
        lr_max=res.lr_max,
        tests=calls,
        losses=res.valid_losses.round(4).tolist(),
        superconv=trained(res.lr_max),
        grid={lr: trained(lr) for lr in lrs},
    )

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', nargs='*', default=list(epochs))
    p.add_argument('--nets', nargs='*')
    p.add_argument('--seeds', type=int, default=2)
    p.add_argument(
        '--lr_max', type=float, help='LR at the end of the test; the default of `lr_range_test` when not given'
    )
    p.add_argument('--name', default='live_range_test_adam')
    args = p.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    path = results/f'{args.name}.json'
    rows = json.loads(path.read_text())['rows'] if path.exists() else []
    order = [(d,n) for d in epochs for n in networks[d][3]]
    for name in args.data:
        if name!='digits' and not os.environ.get('SUPERCONV_DATA'):
            print(f'{name}: set SUPERCONV_DATA')
            continue
        data = (digits('train'),digits('test')) if name=='digits' else fashion()
        for label,net in networks[name][3].items():
            if args.nets and label not in args.nets: continue
            kw = {} if args.lr_max is None else dict(lr_max=args.lr_max)
            row = dict(data=name, net=label, **study(data, net, epochs[name], networks[name][1], args.seeds, **kw))
            rows = [r for r in rows if (r['data'],r['net'])!=(name,label)] + [row]
            best = max(row['grid'], key=lambda lr: np.mean(row['grid'][lr]))
            print(f"{name:14s} {label:27s} {row['feasible']} lr_max {row['lr_max'] or math.nan:.3g}: {row['superconv']}"
                  f"  best of the grid {best:g}: {row['grid'][best]}", flush=True)
            save_results(args.name, dict(rows=sorted(rows, key=lambda r: order.index((r['data'],r['net'])))))

if __name__ == '__main__': main()
