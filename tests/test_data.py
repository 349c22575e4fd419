"Readers of every format, what they refuse, the splits, and augmentation."
import gzip, hashlib, io, os, pickle, zipfile
import numpy as np, pytest, torch
from PIL import Image
from fastai.basics import *
from fastai.callback.all import *
from hypothesis import given, settings, strategies as st
from superconv_fastai.all import *
from superconv_fastai import data
from superconv_fastai.models import resnet8
from superconv_fastai.runs import seed_all
from superconv_fastai.state import undisturbed
import reference
from pathlib import Path # after the star imports

rng = np.random.RandomState(0)
def pictures(n, *shape): return rng.randint(0, 256, (n, *shape), np.uint8)
def labels(n, k=10): return (np.arange(n)*7%k).astype(np.uint8)

# ---- files, written as their specifications say ----

def idx_bytes(a, dtype=8):
    return bytes((0, 0, dtype, a.ndim)) + b''.join(int(s).to_bytes(4, 'big') for s in a.shape) + a.tobytes()

def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

def image_bytes(a, format, **kwargs):
    f = io.BytesIO()
    Image.fromarray(a).save(f, format=format, **kwargs)
    return f.getvalue()

def write_idx(folder, train, test):
    for s,(x,y) in (('train',train),('t10k',test)):
        write(folder/f'{s}-images-idx3-ubyte.gz', gzip.compress(idx_bytes(x[:,0])))
        write(folder/f'{s}-labels-idx1-ubyte.gz', gzip.compress(idx_bytes(y)))

def records(x, y, coarse=False):
    return b''.join((b'\x03' if coarse else b'')+bytes([l])+img.tobytes() for img,l in zip(x, y))

def write_cifar10_bin(folder, train, test):
    for i,part in enumerate(np.array_split(np.arange(len(train[0])), 5), 1):
        write(folder/f'data_batch_{i}.bin', records(train[0][part], train[1][part]))
    write(folder/'test_batch.bin', records(*test))

def write_cifar100_bin(folder, train, test):
    for s,xy in (('train',train),('test',test)): write(folder/f'{s}.bin', records(*xy, coarse=True))

def strips(x, y, n=2):
    res = {f'strip_{i:03}':np.frombuffer(image_bytes(x[j:j+n].transpose(0,2,3,1).reshape(-1,32,3), 'WEBP',
                                                     lossless=True), np.uint8)
                                                     for i,j in enumerate(range(0, len(x), n))}
    return {**res, 'labels':y}

def npz(**arrays):
    f = io.BytesIO()
    np.savez(f, **arrays)
    return f.getvalue()

def write_npz(folder, train, test):
    for i,part in enumerate(np.array_split(np.arange(len(train[0])), 5), 1):
        write(folder/f'train_{i}.npz', npz(**strips(train[0][part], train[1][part])))
    write(folder/'test.npz', npz(**strips(*test)))

def write_png(folder, train, test, parts=('train','test'), group=''):
    for s,(x,y) in zip(parts, (train,test)):
        for i,(img,l) in enumerate(zip(x, y)):
            write(folder/s/(f'group{l%3}' if group else '')/f'class{l:03}'/f'{i:04}.png',
                  image_bytes(img[0] if len(img)==1 else img.transpose(1,2,0), 'PNG'))

kinds = { # format: data set, where, writer, shape of the images, classes, does it keep the order?
    'idx': ('mnist', 'mnist', write_idx, (1,28,28), 10, True),
    'idx fashion': ('fashion_mnist', 'fashion_mnist', write_idx, (1,28,28), 10, True),
    'binary 10': ('cifar10', 'cifar-10-batches-bin', write_cifar10_bin, (3,32,32), 10, True),
    'binary 100': ('cifar100', 'cifar-100-binary', write_cifar100_bin, (3,32,32), 100, True),
    'strips': ('cifar10', 'cifar10', write_npz, (3,32,32), 10, True), 
    'png': ('cifar10', 'cifar10', write_png, (3,32,32), 10, False),
    'png 100': ('cifar100', 'cifar100', partial(write_png, group='g'), (3,32,32), 100, False),
    'png mnist': ('mnist', 'mnist_png', partial(write_png, parts=('training','testing')), (1,28,28), 10, False)}

def a_set(kind, folder):
    "Write a tiny data set; its name, and what should be read"
    name,where,writer,shape,k,_ = kinds[kind]
    parts = [(pictures(n, *shape), labels(n, k)) for n in (max(30, k), max(10, k))]
    writer(folder/where, *parts)
    return name,parts

@pytest.fixture(autouse=True)
def no_environment(monkeypatch): monkeypatch.delenv('SUPERCONV_DATA', raising=False)

@pytest.mark.parametrize('kind', kinds)
def test_every_format(kind, tmp_path):
    name,parts = a_set(kind, tmp_path)
    for (x,y),(a,b) in zip(load_images(name, tmp_path), parts):
        assert x.dtype==torch.uint8 and y.dtype==torch.int64 and x.is_contiguous() and x.is_shared()==False
        if not kinds[kind][-1]: # class after class
            order = sorted(range(len(b)), key=lambda i: ((b[i]%3 if 'png 100'==kind else 0), b[i], i))
            a,b = a[order],b[order]
        assert (x.numpy()==a).all() and (y.numpy()==b).all()

def test_read_once_and_by_folder(tmp_path, monkeypatch):
    name,_ = a_set('idx', tmp_path/'a')
    a_set('idx', tmp_path/'b')
    first = load_images(name, tmp_path/'a')
    assert load_images(name, str(tmp_path/'a'))[0][0] is first[0][0]
    monkeypatch.setenv('SUPERCONV_DATA', str(tmp_path/'a'))
    assert load_images(name)[0][0] is first[0][0]
    assert not torch.equal(load_images(name, tmp_path/'b')[0][0], first[0][0])

# ---- what is refused ----

def edit(f): # the content of a file
    def change(path): path.write_bytes(f(path.read_bytes()))
    return change

def relabel(y, wrap=lambda b: b): return lambda path: path.write_bytes(wrap(idx_bytes(np.array(y, np.uint8))))

class Evil:
    def __reduce__(self): return os.mkdir, ('executed',)

def with_pickle(path):
    a = np.empty(1, object)
    a[0] = Evil()
    path.write_bytes(npz(strip_000=a, labels=labels(6)))

faults = [
    ('idx', 'mnist/train-images-idx3-ubyte.gz', edit(lambda b: b[:len(b)//2]), 'gzipped idx'),
    ('idx', 'mnist/train-images-idx3-ubyte.gz', edit(lambda b: gzip.decompress(b)), 'gzipped idx'),
    ('idx', 'mnist/train-images-idx3-ubyte.gz', edit(lambda b: gzip.compress(gzip.decompress(b)[:-1])),
     'it announces 23520 bytes and holds 23519'),
    ('idx', 'mnist/train-images-idx3-ubyte.gz', edit(lambda b: gzip.compress(gzip.decompress(b)+b'x')), 'holds more'),
    ('idx', 'mnist/train-images-idx3-ubyte.gz',
     edit(lambda b: gzip.compress(idx_bytes(np.zeros((5,28,28), np.float32), 13))), 'magic number is 00000d03'),
    ('idx', 'mnist/train-images-idx3-ubyte.gz', edit(lambda b: gzip.compress(idx_bytes(pictures(5, 32, 32)))),
     r'its items are \[32, 32\]'),
    ('idx', 'mnist/t10k-labels-idx1-ubyte.gz', edit(lambda b: gzip.compress(b'')), 'magic number'),
    ('idx', 'mnist/t10k-labels-idx1-ubyte.gz', lambda p: p.unlink(), 'No such file'),
    ('idx', 'mnist', lambda p: relabel(range(9), gzip.compress)(p/'t10k-labels-idx1-ubyte.gz'),
     'test set of mnist: it has 10 images and 9 labels'),
    ('idx', 'mnist', lambda p: relabel([10]*10, gzip.compress)(p/'t10k-labels-idx1-ubyte.gz'),
     'it has a label 10, and there are 10 classes'),
    ('binary 10', 'cifar-10-batches-bin/data_batch_3.bin', edit(lambda b: b[:-1]), 'no whole number of records'),
    ('binary 10', 'cifar-10-batches-bin/data_batch_3.bin', edit(lambda b: b''), 'no whole number of records'),
    ('binary 10', 'cifar-10-batches-bin/data_batch_5.bin', lambda p: p.unlink(), 'No such file'),
    ('binary 10', 'cifar-10-batches-bin', lambda p: edit(lambda b: b'\xff'+b[1:])(p/'test_batch.bin'),
     'it has a label 255'),
    ('binary 100', 'cifar-100-binary/test.bin', edit(lambda b: b+b'x'), 'no whole number of records'),
    ('strips', 'cifar10/train_2.npz', edit(lambda b: b[:-40]), 'WebP strips'),
    ('strips', 'cifar10/train_2.npz', with_pickle, 'allow_pickle=False'),
    ('strips', 'cifar10/train_2.npz', edit(lambda b: pickle.dumps(Evil())), 'WebP strips'),
    ('strips', 'cifar10/train_2.npz', edit(lambda b: npz(labels=labels(6))), 'it has no strip_'),
    ('strips', 'cifar10/train_2.npz',
     edit(lambda b: npz(strip_0=np.frombuffer(image_bytes(pictures(48, 32, 3).reshape(48,32,3), 'WEBP', lossless=True),
                                              np.uint8), labels=labels(1))), '32 pixels wide and 48 high'),
    ('strips', 'cifar10/train_2.npz',
     edit(lambda b: npz(strip_0=np.frombuffer(image_bytes(pictures(32, 32, 3), 'PNG'), np.uint8), labels=labels(1))),
     'cannot identify image'),
    ('strips', 'cifar10/train_2.npz',
     edit(lambda b: npz(**{k:v for k,v in strips(pictures(6,3,32,32), labels(6)).items() if k!='labels'})),
     'labels is not a file'),
    ('strips', 'cifar10',
     lambda p: (p/'test.npz').write_bytes(npz(**strips(pictures(6,3,32,32), labels(6).astype(float)))),
     'float64 labels, not bytes'),
    ('strips', 'cifar10', lambda p: (p/'test.npz').write_bytes(npz(**strips(pictures(6,3,32,32), labels(5)))),
     '6 images and 5 labels'),
    ('png', 'cifar10/train/class003/0009.png', edit(lambda b: b[:40]), 'a PNG image'),
    ('png', 'cifar10/train/class003/0009.png', edit(lambda b: image_bytes(pictures(32, 32, 3), 'JPEG')),
     'cannot identify image'),
    ('png', 'cifar10/train', lambda p: edit(lambda b: image_bytes(pictures(16, 16, 3), 'PNG'))(p/'class003/0009.png'),
     'same shape'),
    ('png', 'cifar10', lambda p: shutil.rmtree(p/'test/class003'), 'test set of cifar10: it has 9 classes, not 10'),
    ('png', 'cifar10/test', lambda p: shutil.rmtree(p), 'PNG images, class by folder'),
    ('png mnist', 'mnist_png',
     lambda p: [edit(lambda b: image_bytes(pictures(28, 28, 3), 'PNG'))(f) for f in (p/'testing').rglob('*.png')],
     r'its images are \(3, 28, 28\)'),
]

@pytest.mark.parametrize('kind,path,break_it,why', faults, ids=lambda o: o if isinstance(o, str) else '')
def test_a_broken_file_is_named(kind, path, break_it, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name,_ = a_set(kind, tmp_path)
    break_it(tmp_path/path)
    with pytest.raises(ValueError, match=why) as e: load_images(name, tmp_path)
    assert str(tmp_path/path) in str(e.value)
    assert not Path('executed').exists()

@pytest.mark.parametrize('name,first', [('mnist','mnist/train-images-idx3-ubyte.gz or mnist_png/training'),
                                        ('fashion_mnist','fashion_mnist/train-images-idx3-ubyte.gz'),
    ('cifar10','cifar10/train_1.npz or cifar-10-batches-bin/data_batch_1.bin or cifar10/train'),
    ('cifar100','cifar-100-binary/train.bin or cifar100/train')])
def test_a_missing_set_says_what_to_put_where(name, first, tmp_path, monkeypatch):
    for use in (lambda: load_images(name, tmp_path), lambda: image_dls(name, folder=tmp_path)):
        with pytest.raises(ValueError) as e: use()
        assert f"folder={str(tmp_path)!r}" in str(e.value) and f'a folder with {first} for {name}' in str(e.value)
    monkeypatch.setenv('SUPERCONV_DATA', str(tmp_path))
    monkeypatch.setattr(data, 'untar_data',
                        lambda url: pytest.fail('nothing may be downloaded in place of a folder that was given'))
    with pytest.raises(ValueError, match='is not allowed'): load_images(name)

def test_a_missing_set_says_what_is_there(tmp_path):
    a_set('idx', tmp_path)
    with pytest.raises(ValueError, match=r'for cifar10 \(it has mnist\)'): load_images('cifar10', tmp_path)

@pytest.mark.parametrize('folder', [3, ['a'], b'x'])
def test_folder_is_a_path(folder):
    with pytest.raises(ValueError, match='None or a folder'): load_images('mnist', folder)

# ---- fastai's downloads ----

@pytest.mark.parametrize('kind,url', [('png mnist',URLs.MNIST), ('png',URLs.CIFAR), ('png 100',URLs.CIFAR_100)])
def test_untar_data(kind, url, tmp_path, monkeypatch):
    name,parts = a_set(kind, tmp_path)
    calls = []
    monkeypatch.setattr(data, 'untar_data', lambda u: (calls.append(u), tmp_path/kinds[kind][1])[1])
    (x,_),(xt,_) = load_images(name)
    assert calls==[url] and len(x)==len(parts[0][0]) and len(xt)==len(parts[1][0])

def test_fastai_does_not_know_all_of_them():
    why = 'SUPERCONV_DATA must be set to one: fastai does not know where to download fashion_mnist'
    with pytest.raises(ValueError, match=why): load_images('fashion_mnist')

# ---- splits ----

def ids(ds): return [t.numpy().tobytes() for t in ds.tensors[0]]

@pytest.fixture(scope='module')
def mnist(tmp_path_factory):
    "300 + 100 items, classes of unequal size"
    folder,r = tmp_path_factory.mktemp('data'),np.random.RandomState(1)
    write_idx(folder/'mnist',
              *((pictures(n, 1, 28, 28),
                 np.sort(np.concatenate([np.arange(10), np.minimum(r.poisson(4, n-10), 9)])).astype(np.uint8))
                 for n in (300,100)))
    return folder

@settings(max_examples=40, deadline=None)
@given(n_train=st.integers(1, 200), n_valid=st.integers(1, 100), seed=st.integers(0, 2**32-1),
       valid=st.sampled_from(['tune','test']))
def test_splits(mnist, n_train, n_valid, seed, valid):
    (x,y),(xt,yt) = load_images('mnist', mnist)
    kw = dict(n_valid=n_valid, valid=valid, seed=seed, folder=mnist, device='cpu', bs=1)
    dls,most = image_dls('mnist', n_train=n_train, **kw),image_dls('mnist', **kw)
    train,held = ids(dls.train_ds),ids(dls.valid_ds)
    assert len(set(train))==n_train and len(set(held))==n_valid
    assert not set(train) & set(held) and set(train)<=set(ids(most.train_ds)) and held==ids(most.valid_ds)
    pool = {i.numpy().tobytes():int(l) for i,l in zip(*((x,y) if valid=='tune' else (xt,yt)))}
    assert set(held)<=set(pool) and len(most.train_ds)==300-n_valid*(valid=='tune')
    for ds,avail in ((dls.train_ds,[o for o in zip(ids(most.train_ds), most.train_ds.tensors[1].tolist())]),
                     (dls.valid_ds,list(pool.items()))): # each class its turn
        got,have = (torch.bincount(torch.tensor(o), minlength=10)
                    for o in (ds.tensors[1].tolist(), [l for _,l in avail]))
        assert all(got[c]>=got.max()-1 or got[c]==have[c] for c in range(10))

def test_seed_chooses_the_items(mnist):
    a,b,c = (ids(image_dls('mnist', n_train=50, n_valid=20, valid='tune', folder=mnist, device='cpu', bs=10,
                           seed=s).train_ds) for s in (0,0,1))
    assert a==b and a!=c

@pytest.mark.parametrize('size', [None,14,7])
def test_normalised_on_the_items_used(mnist, size):
    dls = image_dls('mnist', n_train=100, size=size, folder=mnist, device='cpu', bs=100)
    (x,y), = dls.train
    assert x.dtype==torch.float32 and abs(x.mean())<1e-5 and abs(x.std(correction=0)-1)<1e-5
    raw = load_images('mnist', mnist)[1][0].float()
    if size: raw = raw.view(100, 1, size, 28//size, size, 28//size).mean((3,5))
    mean,std = dls.train.after_batch[0].mean,dls.train.after_batch[0].std
    assert torch.allclose(torch.cat([b[0] for b in dls.valid]), (raw-mean)/std, atol=1e-4)

def test_a_black_channel_is_not_divided_by_zero(tmp_path):
    x = pictures(30, 3, 32, 32)
    x[:,1] = 7
    write_cifar10_bin(tmp_path/'cifar-10-batches-bin', (x,labels(30)), (x[:10],labels(10)))
    assert image_dls('cifar10', bs=10, folder=tmp_path, device='cpu').one_batch()[0].isfinite().all()

@pytest.mark.parametrize('kwargs,match', [
    (dict(name='svhn'), "name='svhn'"), (dict(valid='train'), "valid='train'"), (dict(aug='flip'), "aug='flip'"),
    (dict(n_train=0), r'n_train=0 .*\[1, 1297\]'), (dict(n_train=1298), 'n_train=1298'),
    (dict(n_valid=0), 'n_valid=0'), (dict(n_valid=501), r'n_valid=501 .*\[1, 500\]'),
    (dict(valid='tune', n_valid=1297), r'n_valid=1297 .*\[1, 1296\]'), (dict(n_train=10), 'bs=64 .*n_train=10'),
    (dict(bs=0), 'bs=0'), (dict(size=5), 'size=5 .*a divisor of 8'), (dict(size=0), 'size=0'),
    (dict(size=16), 'size=16'), (dict(seed=-1), 'seed=-1'), (dict(seed=1.5), 'seed=1.5'),
    (dict(n_train='all'), "n_train='all'")])
def test_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match): image_dls(**{'name':'digits', **kwargs})

# ---- batches ----

def test_batches_are_those_of_fastais_loader():
    "Same shuffle, same items: only faster"
    x,y = torch.arange(23.)[:,None],torch.arange(23)
    def epochs(dl): return [[b[1].tolist() for b in dl] for _ in range(3)]
    set_seed(0)
    mine = epochs(tensor_dls((x,y), (x,y), bs=4, device='cpu').train)
    set_seed(0)
    theirs = epochs(DataLoader(list(zip(x, y)), bs=4, shuffle=True, num_workers=0))
    assert mine==theirs

@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
@pytest.mark.parametrize('pad,p,shape', [(0,.5,(9,1,8,8)), (4,.5,(9,3,32,32)), (2,1.,(5,2,7,9)), (7,0.,(5,1,8,8))])
def test_augmentation_is_the_naive_one(pad, p, shape, dtype):
    x,y = (torch.rand(shape)*256).to(dtype),torch.arange(len(shape))
    set_seed(3)
    out,same = RandomCropMirror(pad, p)((x,y))
    set_seed(3)
    tops,lefts = (torch.randint(2*pad+1, (len(x),1))[:,0].tolist() if pad else [0]*len(x) for _ in range(2))
    mirrored = (torch.rand(len(x))<p).tolist()
    assert same is y and out.dtype==dtype and out.is_contiguous()
    assert (out.numpy()==reference.crop_mirror(x.numpy(), tops, lefts, mirrored, pad)).all()

@pytest.mark.parametrize('kwargs,match', [(dict(pad=-1), 'pad=-1'), (dict(pad=1.5), 'pad=1.5'), (dict(p=2), 'p=2')])
def test_augmentation_refuses(kwargs, match):
    with pytest.raises(ValueError, match=match): RandomCropMirror(**kwargs)

def test_padding_must_be_narrower_than_the_image():
    with pytest.raises(ValueError,
                       match='pad=8 is not allowed: it must be less than the side of the images, and they are 8x9'):
        RandomCropMirror(8)((torch.zeros(2,1,8,9),0))

def test_only_training_batches_are_augmented(mnist):
    kw = dict(folder=mnist, device='cpu', bs=100, n_valid=100)
    plain,aug = image_dls('mnist', **kw),image_dls('mnist', aug='crop+mirror', **kw)
    assert all(torch.equal(a[0], b[0]) for a,b in zip(plain.valid, aug.valid))
    assert aug.train.after_batch[0].pad==3 and image_dls('mnist', aug='mirror', **kw).train.after_batch[0].pad==0
    seen = {t.numpy().tobytes() for b in aug.train for t in b[0]}
    assert len(seen & {t.numpy().tobytes() for b in plain.train for t in b[0]}) < 30 # about 1 in 98 by chance

def learner(seed=0, **kwargs):
    set_seed(seed)
    dls = image_dls('digits', n_train=128, n_valid=50, aug='crop+mirror', device='cpu', bs=32)
    return Learner(dls, resnet8(4, n_in=1), loss_func=nn.CrossEntropyLoss(), opt_func=partial(SGD, mom=.9),
                   metrics=accuracy, **kwargs)

class Seen(Callback):
    "The training batches"
    run_valid = False
    def __init__(self): self.batches = []
    def before_batch(self): self.batches.append(self.xb[0].clone())

def test_same_seed_same_crops_whatever_the_schedule():
    def run(fit, seed):
        learn,seen = learner(),Seen()
        seed_all(seed, learn.dls)
        fit(learn, seen)
        return torch.stack(seen.batches)
    one = run(lambda l,cb: l.fit_superconv(2, .1, cbs=cb), 1)
    assert torch.equal(one, run(lambda l,cb: l.fit_one_cycle(2, .3, cbs=cb), 1))
    assert not torch.equal(one, run(lambda l,cb: l.fit_superconv(2, .1, cbs=cb), 2))

def test_augmentation_and_undisturbed():
    learn,seen = learner(),Seen()
    def epoch():
        seen.batches.clear()
        learn.fit(1, .1, cbs=seen)
        return torch.stack(seen.batches)
    with undisturbed(learn): first = epoch()
    with undisturbed(learn): learn.fit(2, .1)
    assert torch.equal(first, epoch()) and not torch.equal(first, epoch())

def test_augmentation_and_start_epoch():
    learn,seen = learner(),Seen()
    learn.fit_superconv(3, .1, cbs=seen, start_epoch=2)
    assert len(seen.batches)==4

def test_the_audit_sees_the_augmentation():
    rows = learner().regularizers()
    assert rows[rows.kind=='augmentation']['where'].str.contains('batch_tfms: RandomCropMirror').any()

def test_loaders_travel_to_other_processes():
    import cloudpickle
    learn = learner()
    dls = cloudpickle.loads(cloudpickle.dumps(learn.dls))
    for a,b in zip(learn.dls.valid, dls.valid): assert torch.equal(a[0], b[0])

# ---- what the data say to `Learner` ----

def test_learner_needs_no_loss_function():
    learn = Learner(digits_dls(device='cpu'), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), metrics=accuracy, lr=.01)
    learn.fit(1)
    assert isinstance(learn.loss_func, CrossEntropyLossFlat) and learn.dls.c==10 and learn.recorder.values[-1][-1]>.6

def test_the_loss_is_the_one_that_was_passed_before():
    "The same training, with a loss of one's own and with that of the data"
    def weights(**kwargs):
        set_seed(0)
        learn = Learner(digits_dls(device='cpu'), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), opt_func=SGD,
                        **kwargs)
        learn.fit(1, .1)
        return learn.model[1].weight
    assert torch.equal(weights(), weights(loss_func=CrossEntropyLossFlat()))

@pytest.mark.parametrize('copy', [lambda o: pickle.loads(pickle.dumps(o)), deepcopy, lambda o: o.new()],
                         ids=['pickle','deepcopy','new'])
def test_loss_and_classes_travel(copy):
    dl = copy(tensor_dls(digits('train'), digits('tune'), device='cpu').train)
    assert isinstance(dl.dataset.loss_func, CrossEntropyLossFlat) and dl.dataset.c==dl.c==10

def test_classes_are_those_of_the_set_not_of_the_part(tmp_path):
    write_cifar100_bin(tmp_path/'cifar-100-binary', *((pictures(n, 3, 32, 32), labels(n, 100)) for n in (100,100)))
    assert image_dls('cifar100', bs=5, n_train=20, n_valid=10, folder=tmp_path, device='cpu').c==100

@pytest.mark.parametrize('y', [torch.randn(20, 1), torch.randn(20), torch.randint(2, (20,3)),
                               torch.randint(2, (20,3)).float(), torch.zeros(20, dtype=torch.uint8)],
                         ids=['regression','flat regression','labels in columns','multi-label','bytes'])
def test_other_targets_have_no_loss_of_their_own(y):
    dls = tensor_dls((torch.randn(20, 4),y), (torch.randn(20, 4),y), device='cpu')
    assert getattr(dls.train_ds, 'loss_func', None) is None
    with pytest.raises(AssertionError, match='Could not infer loss function'): Learner(dls, nn.Linear(4, 3))

def test_regression_trains():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    y = x@torch.tensor([1.,-2.,.5]) + 3
    learn = Learner(tensor_dls((x,y[:,None]), (x,y[:,None]), bs=20, device='cpu'), nn.Linear(3, 1), MSELossFlat(),
                    opt_func=SGD)
    learn.fit(5, .1)
    assert learn.validate()[0]<1e-3

# ---- folders ----

def test_image_folders(tmp_path, monkeypatch):
    for s in ('train','val'):
        for i in range(12): write(tmp_path/s/f'n{i%3}'/f'{i}.JPEG', image_bytes(pictures(30+i, 40, 3), 'JPEG'))
    monkeypatch.setattr(data, 'untar_data', lambda u: tmp_path if u==URLs.IMAGENETTE else pytest.fail(u))
    dls = image_folder_dls(size=23, bs=4, num_workers=0, device='cpu')
    x,y = dls.one_batch()
    assert x.shape==(4,3,23,23) and len(dls.train_ds)==len(dls.valid_ds)==12 and len(dls.vocab)==3
    names = {'RandomCrop','Flip'}
    assert names <= {type(o).__name__ for p in (dls.after_item,dls.after_batch) for o in p.fs}
    a,b = (torch.cat([TensorBase(b[0]) for b in dls.valid]) for _ in range(2))
    assert torch.equal(a, b) # nothing random in the test
    shutil.rmtree(tmp_path/'val')
    with pytest.raises(ValueError, match='a folder with train and val: it has no val'): image_folder_dls(tmp_path)

# ---- the published sets, where a copy is at hand ----

real = os.environ.get('SUPERCONV_DATA')
sha = {'cifar10': ('47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a',
                   '2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253',
                   'f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04',
                   'cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5')}

@pytest.mark.skipif(not real or not (Path(real or '.')/'cifar10/train_1.npz').exists(), reason='no copy of CIFAR-10')
def test_cifar10_is_the_published_one():
    got = [hashlib.sha256(np.ascontiguousarray(a)).hexdigest() for x,y in load_images('cifar10', real)
           for a in (x.permute(0,2,3,1).numpy(), y.numpy().astype(np.uint8))]
    assert tuple(got)==sha['cifar10']

@pytest.mark.skipif(not real, reason='SUPERCONV_DATA is not set')
@pytest.mark.parametrize('name,counts', [('mnist',(60_000,10_000)), ('fashion_mnist',(60_000,10_000))])
def test_published_counts(name, counts):
    if not any((Path(real)/p).exists() for p,_ in data._local[name]): pytest.skip(f'no copy of {name}')
    assert tuple(len(x) for x,_ in load_images(name, real))==counts
