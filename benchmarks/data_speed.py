"""Images that the loaders of `image_dls` deliver in a second of CPU time, one thread: with and without augmentation, and item by item.

    SUPERCONV_DATA=/path/to/data python benchmarks/data_speed.py

CIFAR-10 (the 10,000 images of cifar10_subset.npz), an epoch of training batches each; medians. Writes results/data_speed.json."""
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
    return DataLoader(dls.train_ds, bs=dls.train.bs, shuffle=True, drop_last=True, num_workers=0, after_batch=dls.train.after_batch, device=dls.train.device)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--repeats', type=int, default=5)
    args = p.parse_args()
    torch.set_num_threads(1); warnings.simplefilter('ignore')
    loaders = {}
    start = time.process_time()
    load_images('cifar10_subset')
    read = time.process_time()-start
    for bs in (64,512):
        for aug in ('none','mirror','crop+mirror'): loaders[bs,aug,'TensorDL'] = image_dls('cifar10_subset', bs=bs, aug=aug, device='cpu').train
        loaders[bs,'none','DataLoader'] = one_by_one(image_dls('cifar10_subset', bs=bs, device='cpu'))
    rates = {k:[] for k in loaders}
    for _ in range(args.repeats):
        for k,dl in loaders.items(): rates[k].append(rate(dl)) # in turn, so that all see the same machine
    rows = [dict(bs=bs, aug=aug, loader=loader, images_per_s=round(float(np.median(r)))) for (bs,aug,loader),r in rates.items()]
    for r in rows: print(r)
    print(f'{read:.2f} s to read 12,000 images')
    start = time.process_time()
    image_dls('cifar10_subset', bs=64, device='cpu')
    again = time.process_time()-start
    start = time.process_time()
    image_dls('cifar10_subset', n_train=5000, bs=64, seed=1, device='cpu')
    part = time.process_time()-start
    save_results('data_speed', dict(repeats=args.repeats, rows=rows, read_s=read, image_dls_s=dict(same_items=again, other_items=part)))
