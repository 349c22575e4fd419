"""Images that the loaders of `image_dls` deliver in a second of CPU time on one thread.

    SUPERCONV_DATA=/path/to/data python benchmarks/data_speed.py

10,000 images of CIFAR-10, an epoch of training batches each, with and without augmentation, and item by item; medians.
Writes results/data_speed.json.
"""
import argparse, time, warnings
from fastai.basics import *
from superconv_fastai.all import *
from common import save_results

def rate(dl):
    "Images in a second of CPU time, one epoch"
    start,n = time.process_time(),0
    for x,_ in dl: n += len(x)
    return n/(time.process_time()-start)

def one_by_one(dls):
    "What `TensorDL` replaces: the same `TensorDataset`, by fastai's `DataLoader`"
    return DataLoader(dls.train_ds, bs=dls.train.bs, shuffle=True, drop_last=True, num_workers=0,
                      after_batch=dls.train.after_batch, device=dls.train.device)

def seconds(f):
    "CPU time of a call"
    start = time.process_time()
    f()
    return time.process_time()-start

part = partial(image_dls, 'cifar10', n_valid=2000, device='cpu')

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--repeats', type=int, default=5)
    a = ap.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    read,loaders = seconds(lambda: load_images('cifar10')),{}
    for bs in (64,512):
        for aug in ('none','mirror','crop+mirror'): loaders[bs,aug,'TensorDL'] = part(bs, 10_000, aug=aug).train
        loaders[bs,'none','DataLoader'] = one_by_one(part(bs, 10_000))
    rates = {k:[] for k in loaders}
    for _ in range(a.repeats):
        for k,dl in loaders.items(): rates[k].append(rate(dl)) # in turn, so that all see the same machine
    rows = [dict(bs=bs, aug=aug, loader=loader, images_per_s=round(float(np.median(r))))
            for (bs,aug,loader),r in rates.items()]
    for r in rows: print(r)
    print(f'{read:.2f} s to read 60,000 images')
    again,other = seconds(lambda: part(64, 10_000)),seconds(lambda: part(64, 5000, seed=1))
    image_dls_s = dict(same_items=again, other_items=other)
    save_results('data_speed', dict(repeats=a.repeats, rows=rows, read_s=read, image_dls_s=image_dls_s))

if __name__=='__main__': main()
