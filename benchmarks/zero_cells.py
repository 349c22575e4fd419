"""The cells of `zero_tuning.py`: small tasks, each a data set, a network, an optimizer and a budget.

A cell is `(make, n_epoch)`. `make(seed)` returns a new learner, which knows training items only, and its test set: a
function of the learner that makes a DataLoader. The cells were written down before any of them was trained.
"""
import hashlib
from functools import cache
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.data import digits, image_dls, tensor_dls
from superconv_fastai.models import resnet8
from small import sgd

# ---- networks ----

def conv_net(n_in, norm='batch', n_out=10):
    "Two convolutions"
    norms = dict(batch=nn.BatchNorm2d, group=partial(nn.GroupNorm, 4))
    def block(i, o):
        norm_layer = [norms[norm](o)] if norm in norms else []
        return nn.Conv2d(i, o, 3, padding=1, bias=not norm_layer),*norm_layer,nn.ReLU()
    body = *block(n_in, 16),nn.MaxPool2d(2),*block(16, 32)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), Flatten(), nn.Linear(128, n_out))

def mlp(n_in, norm=False):
    "Two hidden layers"
    def block(i): return nn.Linear(i, 100),*[nn.LayerNorm(100)]*norm,nn.ReLU()
    return nn.Sequential(Flatten(), *block(n_in), *block(100), nn.Linear(100, 10))

class VisionTransformer(Module):
    "Patches of 4 by 4 pixels, two encoder layers of width 64"
    def __init__(self, n_in, size):
        self.patches,self.place = nn.Conv2d(n_in, 64, 4, 4),nn.Parameter(.02*torch.randn(1, (size//4)**2, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0., activation='gelu', batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 10))
    def forward(self, x): return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)+self.place).mean(1))

class CharModel(Module):
    "The next character, by a GRU"
    def __init__(self, n):
        self.emb,self.rnn,self.out = nn.Embedding(n, 32),nn.GRU(32, 96, batch_first=True),nn.Linear(96, n)
    def forward(self, x): return self.out(self.rnn(self.emb(x))[0])

def bn(x): return conv_net(x.shape[1])
def group(x): return conv_net(x.shape[1], 'group')
def plain(x): return conv_net(x.shape[1], 'none')
def dense(x): return mlp(x[0].numel())
def dense_norm(x): return mlp(x[0].numel(), norm=True)
def res(x): return resnet8(8, x.shape[1], stride=2)
def transformer(x): return VisionTransformer(x.shape[1], x.shape[2])

# ---- images ----

_sizes = dict(fashion=('fashion_mnist',3000,14), cifar=('cifar10',3000,16), mnist=('mnist',3000,14),
              cifar_full=('cifar10',4000,32))

@cache
def images(name):
    "Training images of zero mean and unit variance, labels; 2,000 test images and labels (500 of digits)"
    if name=='digits': return *digits('train'),*digits('test')
    data,n,size = _sizes[name]
    dls = image_dls(data, 64, n, 2000, size=size, device='cpu')
    (x,y),(xt,yt) = (dl.dataset.tensors for dl in dls.loaders)
    mean,std = x.float().mean((0,2,3), True),x.float().std((0,2,3), keepdim=True)
    return (x-mean)/std,y,(xt-mean)/std,yt

class Quiet(Callback):
    "No validation in the runs: the test set is scored once, at the end"
    order = 65
    def before_validate(self):
        if not hasattr(self.learn, 'scoring'): raise CancelValidException()

def quiet(learn):
    learn.logger = noop
    return learn.remove_cb(ProgressCallback)

def tensor_learner(train, model, opt, bs=64, loss_func=None, metrics=accuracy):
    "A learner on tensors, and no others to validate on than some that it trains on"
    dls = tensor_dls(train, [t[:64] for t in train], bs, 'cpu')
    return quiet(Learner(dls, model, loss_func=ifnone(loss_func, CrossEntropyLossFlat()), opt_func=opt, metrics=metrics,
                         path=Path('/tmp'), cbs=Quiet()))

def test_tensors(*tensors):
    "As a function of the learner: a loader of these"
    def loader(learn):
        dl = learn.dls.valid.new(torch.utils.data.TensorDataset(*tensors), shuffle=False)
        dl.n = len(tensors[0])
        return dl
    return loader

def image_cell(data, net, opt, n_epoch):
    def make(seed):
        x,y,xt,yt = images(data)
        set_seed(seed)
        return tensor_learner((x,y), net(x), opt),test_tensors(xt, yt)
    return make,n_epoch

def transfer_cell(n_epoch):
    "A network that was trained on five classes of CIFAR-10 learns the other five from 400 images"
    def make(seed):
        x,y,xt,yt = images('cifar')
        set_seed(seed)
        net = conv_net(3, n_out=5)
        tensor_learner((x[y<5],y[y<5]), net, Adam).fit_one_cycle(8, .01)
        net[-1] = nn.Linear(128, 5)
        new,test = (y>=5).nonzero()[:400,0],yt>=5
        def split(net): return [params(net[:-1]),params(net[-1:])]
        learn = tensor_learner((x[new],y[new]-5), net, Adam, bs=16)
        learn.splitter = split
        return learn,test_tensors(xt[test], yt[test]-5)
    return make,n_epoch

# ---- tables, texts, series ----

def table_cell(opt, n_epoch):
    "statsmodels' `fair`: 6,366 answers about a marriage, was there an affair? By fastai's `tabular_learner`"
    def make(seed):
        from statsmodels.datasets import fair
        from fastai.tabular.all import Categorify, CategoryBlock, Normalize, TabularDataLoaders, tabular_learner
        df = fair.load_pandas().data.sample(frac=1, random_state=0).reset_index(drop=True)
        df['affair'] = (df.pop('affairs')>0).map({False:'no', True:'yes'})
        kinds = ['occupation','occupation_husb','religious']
        train,test = df[:5000],df[5000:]
        set_seed(seed)
        dls = TabularDataLoaders.from_df(train, procs=[Categorify,Normalize], y_names='affair', y_block=CategoryBlock(),
            cat_names=kinds, cont_names=[c for c in df if c not in kinds+['affair']], valid_idx=list(range(64)), bs=64)
        learn = tabular_learner(dls, layers=[100,50], opt_func=opt, metrics=accuracy, path=Path('/tmp'), cbs=Quiet())
        return quiet(learn),lambda learn: learn.dls.test_dl(test, with_labels=True)
    return make,n_epoch

@cache
def characters(length=48):
    "The help texts that Python ships, in pieces: inputs, targets, the number of characters; their hash is in the log"
    from pydoc_data.topics import topics
    text = ''.join(topics[k] for k in sorted(topics))
    names = {c:i for i,c in enumerate(sorted(set(text)))}
    ids = torch.tensor([names[c] for c in text])
    n = (len(ids)-1)//length
    x,y = ids[:n*length].view(n, length),ids[1:n*length+1].view(n, length)
    return x,y,len(names),hashlib.sha256(text.encode()).hexdigest()[:12]

def text_cell(opt, n_epoch):
    "3,000 pieces to train on, 500 to score by; no accuracy"
    def make(seed):
        x,y,n,_ = characters()
        set_seed(seed)
        return tensor_learner((x[:3000],y[:3000]), CharModel(n), opt, metrics=[]),test_tensors(x[-500:], y[-500:])
    return make,n_epoch

def series_cell(arch, n_epoch):
    "tsai's own learner, `TSClassifier`, on digits read row by row: eight series of eight steps"
    def make(seed):
        from tsai.data.core import TSClassification
        from tsai.tslearner import TSClassifier
        x,y,xt,yt = images('digits')
        set_seed(seed)
        splits = list(range(len(x))),list(range(64))
        learn = TSClassifier(x[:,0].numpy(), y.numpy(), splits=splits, tfms=[None,TSClassification()], arch=arch, bs=64,
                             metrics=accuracy, cbs=Quiet(), path=Path('/tmp'), device=torch.device('cpu'))
        assert learn.dls.c==10
        def test(learn):
            return learn.dls.valid.new(learn.dls.valid.dataset.add_dataset(xt[:,0].numpy(), yt.numpy()))
        return quiet(learn),test
    return make,n_epoch

# ---- both halves ----

adamw = partial(OptimWrapper, opt=torch.optim.AdamW)

DEVELOPMENT = {
    'digits bn adam 3': image_cell('digits', bn, Adam, 3),
    'digits bn sgd 20': image_cell('digits', bn, sgd, 20),
    'digits plain adam 20': image_cell('digits', plain, Adam, 20),
    'digits plain sgd 20': image_cell('digits', plain, sgd, 20),
    'digits mlp adam 20': image_cell('digits', dense, Adam, 20),
    'digits mlp sgd 5': image_cell('digits', dense, sgd, 5),
    'fashion res adam 7': image_cell('fashion', res, Adam, 7),
    'fashion res sgd 2': image_cell('fashion', res, sgd, 2),
    'fashion plain sgd 7': image_cell('fashion', plain, sgd, 7),
    'fashion bn adam 7': image_cell('fashion', bn, Adam, 7),
    'cifar res sgd 7': image_cell('cifar', res, sgd, 7),
    'cifar plain adam 7': image_cell('cifar', plain, Adam, 7)}
CONFIRMATION = {
    'mnist bn sgd 7': image_cell('mnist', bn, sgd, 7),
    'cifar 32 res adam 5 (near)': image_cell('cifar_full', res, Adam, 5),
    'fashion group norm adam 7': image_cell('fashion', group, Adam, 7),
    'mnist layer norm sgd 7': image_cell('mnist', dense_norm, sgd, 7),
    'cifar transformer adam 7': image_cell('cifar', transformer, Adam, 7),
    'fair tabular adam 4': table_cell(Adam, 4),
    'topics characters adam 7': text_cell(Adam, 7),
    'mnist bn adamw 7': image_cell('mnist', bn, adamw, 7),
    'fashion bn sgd without momentum 7': image_cell('fashion', bn, SGD, 7),
    'series InceptionTime adam 20': series_cell('InceptionTime', 20),
    'series TSTPlus adam 20': series_cell('TSTPlus', 20),
    'cifar transfer adam 12': transfer_cell(12)}
NEEDS = {'fair tabular adam 4':'statsmodels', 'series InceptionTime adam 20':'tsai', 'series TSTPlus adam 20':'tsai'}

def is_sgd(cell): return 'sgd' in cell
def usual(cell): return 1. if 'without momentum' in cell else .1 if is_sgd(cell) else .01
def data_set(cell): return cell.split()[0]
