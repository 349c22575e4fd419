"""Wall time of `lr_range_test`, held-out evaluation included, against `lr_find` for the same number of steps.

Alternating, with the defaults and with 200 steps, 20 evaluations and 200 items. Writes results/range_test.json. About
three minutes.
"""
import argparse, statistics, time, warnings
import torch
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.all import *
from common import save_results

def convnet():
    def block(i, o, stride=1): return nn.Conv2d(i, o, 3, stride, 1, bias=False),nn.BatchNorm2d(o),nn.ReLU()
    body = *block(1, 16),*block(16, 32, 2),*block(32, 32)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

def mlp(): return nn.Sequential(nn.Flatten(), nn.Linear(64,100), nn.ReLU(), nn.Linear(100,10))

def seconds(f, **kwargs):
    start = time.perf_counter()
    f(show_plot=False, stop_div=False, **kwargs)
    return time.perf_counter()-start

def ratio(net, repeats, **kwargs):
    "Both in turn on one learner; the first pair warms up"
    set_seed(0)
    learn = Learner(digits_dls(device='cpu'), net(), loss_func=CrossEntropyLossFlat(), opt_func=partial(SGD, mom=.9),
                    metrics=accuracy)
    find = dict(start_lr=1e-5, end_lr=1., num_it=200, suggest_funcs=(SuggestionMethod.Valley,))
    with learn.no_bar():
        pairs = [(seconds(learn.lr_range_test, lr_max=1., **kwargs), seconds(learn.lr_find, **find))
                 for _ in range(repeats+1)][1:]
    tests,finds = zip(*pairs)
    ratios = [a/b for a,b in pairs]
    return dict(lr_range_test_s=round(statistics.median(tests), 3), lr_find_s=round(statistics.median(finds), 3),
                ratio=round(statistics.median(ratios), 3), ratios=[round(r, 3) for r in ratios])

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--repeats', type=int, default=9)
    a = ap.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    res = {}
    for name,net in dict(convnet=convnet, mlp=mlp).items():
        for how,kw in dict(defaults={}, given=dict(n_steps=200, n_evals=20, n_valid=200)).items():
            res[f'{name}, {how}'] = row = ratio(net, a.repeats, **kw)
            print(f'{name:8s} {how:9s}', {k:v for k,v in row.items() if k!='ratios'}, flush=True)
    save_results('range_test', dict(steps=200, bound=1.5, rows=res))

if __name__=='__main__': main()
