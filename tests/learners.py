"""Small learners of every kind that fastai users make: one function per kind, `f(seed=0, path='.')`. Real data, nothing
downloaded.

`applications` are fastai's applications, each with its own model, data and loss. `options` are one small image
classifier with one training option each."""
import atexit, shutil, tempfile
from functools import lru_cache

import torch.utils.data
from torch.utils.data import IterableDataset, TensorDataset
from fastai.callback import fp16
from fastai.callback.all import *
from fastai.collab import *
from fastai.tabular.all import *
from fastai.text.all import *
from fastai.vision.all import *
from small_learners import OwnStep
from superconv_fastai.data import TensorDL, digits, tensor_dls

root = Path(__file__).resolve().parents[1]
sgd = partial(SGD, mom=.9)

def quiet(learn, path='.'):
    learn.path,learn.logger = Path(path),noop
    return learn.remove_cbs(learn.cbs.filter(risinstance(ProgressCallback)))

def on_cpu(dls):
    dls.to('cpu')
    return dls

class Items(TensorDataset):
    "Tensors that `Learner.export` can empty"
    def new_empty(self): return Items(*(t[:0] for t in self.tensors))

def loaders(train, valid):
    "Tensors in memory, in batches of 32"
    dls = tensor_dls(train, valid, 32, 'cpu')
    for dl in dls.loaders: dl.dataset = Items(*dl.dataset.tensors)
    return dls

# ---- data ----

@lru_cache
def image_files(n_train=32, n_valid=16):
    "A folder of 32x32 PNGs of scikit-learn's digits, as ImageNet has it: train/3/17.png"
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, True)
    x,y = digits('train')
    for i in range(n_train+n_valid):
        f = folder/('train' if i<n_train else 'valid')/str(y[i].item())/f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((x[i, 0] - x.min()) * 255 / (x.max() - x.min())).numpy().astype(np.uint8)).resize(
            (32, 32)
        ).convert('RGB').save(f)
    return folder

def ink(f): return (np.array(Image.open(f).convert('L'))>128).astype(np.uint8)

def rows(load, **kwargs):
    "One of scikit-learn's tables, in a random order"
    import sklearn.datasets
    df = getattr(sklearn.datasets, load)(as_frame=True, **kwargs).frame
    return df.sample(frac=1, random_state=0, ignore_index=True)

@lru_cache
def passages(n=12):
    "Passages of `n` lines and where they are from, the licence or a front page that does not change"
    def lines_of(f): return [l.strip() for l in f.read_text(encoding='utf-8').splitlines() if l.strip()][:96]
    lines = dict(licence=lines_of(root/'LICENSE'), readme=lines_of(root/'tests'/'data'/'front_page.txt'))
    return pd.DataFrame([(' '.join(ls[i:i+n//3]), k) for k,ls in lines.items() for i in range(0, len(ls), n//3)],
                        columns=['text','label'])

class Stream(IterableDataset):
    "Digits that come one after the other, nobody knows how many"
    def __iter__(self): yield from zip(*(t[:128] for t in digits('train')))

# ---- fastai's applications ----

def vision(seed=0, path='.'):
    "`vision_learner`, its body and its head with LRs of their own, augmented images from files"
    set_seed(seed)
    dls = ImageDataLoaders.from_folder(image_files(), train='train', valid='valid', bs=8, num_workers=0,
                                       batch_tfms=[*aug_transforms(size=32), Normalize.from_stats(*imagenet_stats)])
    return quiet(vision_learner(on_cpu(dls), resnet18, pretrained=False, metrics=accuracy, opt_func=sgd,
                                lr=slice(1e-3,1e-2)), path)

def unet(seed=0, path='.'):
    "`unet_learner`: which pixels are ink"
    set_seed(seed)
    files = get_image_files(image_files())[:16]
    dls = SegmentationDataLoaders.from_label_func('.', files, ink, codes=['paper','ink'], valid_pct=.25, seed=0, bs=4,
                                                  num_workers=0,
                                                  batch_tfms=Normalize.from_stats(*imagenet_stats))
    return quiet(unet_learner(on_cpu(dls), resnet18, pretrained=False, metrics=foreground_acc, opt_func=sgd, lr=1e-2,
                              normalize=False), path)

def tabular(seed=0, path='.'):
    "`tabular_learner`: wines, with a category and gaps"
    set_seed(seed)
    df = rows('load_wine')
    df['shade'] = pd.cut(df.pop('hue'), 3, labels=['pale','medium','deep']).astype(str)
    df.loc[::10, 'ash'] = np.nan
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, FillMissing, Normalize], cat_names=['shade'],
                                     cont_names=[c for c in df if c not in ('shade', 'target')], y_names='target',
                                     y_block=CategoryBlock(), valid_idx=range(142, 178), bs=16, num_workers=0,
                                     device='cpu')
    return quiet(tabular_learner(dls, layers=[32,16], config=tabular_config(ps=.1), metrics=accuracy, opt_func=sgd,
                                 lr=1e-2), path)

def regression(seed=0, path='.'):
    "`tabular_learner` with a number to predict: no accuracy, no metric at all"
    set_seed(seed)
    df = rows('load_diabetes', scaled=False)
    df['target'] /= 100
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, Normalize], cat_names=['sex'],
                                     cont_names=['age', 'bmi', 'bp', 's1', 's2', 's3', 's4', 's5', 's6'],
                                     y_names='target', y_block=RegressionBlock(), valid_idx=range(160, 200), bs=20,
                                     num_workers=0, device='cpu')
    return quiet(tabular_learner(dls, layers=[20], y_range=(0,4), opt_func=sgd, lr=1e-2), path)

def collab(seed=0, path='.'):
    "`collab_learner`: images as users, pixels as items, ink as ratings"
    set_seed(seed)
    x = digits('train')[0][:12,0].flatten(1)
    user,item = np.indices(x.shape).reshape(2, -1)
    df = pd.DataFrame(dict(user=user, item=item, rating=x.flatten().numpy()))
    dls = CollabDataLoaders.from_df(df, valid_pct=.2, seed=0, bs=64, num_workers=0, device='cpu')
    return quiet(collab_learner(dls, n_factors=8, y_range=(-1,3), metrics=rmse, opt_func=sgd, lr=1e-2, wd=.01), path)

tokens = dict(tok=BaseTokenizer(), n_workers=0, min_freq=2)

def language_model(seed=0, path='.'):
    "`language_model_learner` on AWD-LSTM, tied weights and four kinds of dropout"
    set_seed(seed)
    block = DataBlock(TextBlock.from_df('text', is_lm=True, seq_len=16, **tokens), get_x=ColReader('text'),
                      splitter=RandomSplitter(.2, seed=0))
    dls = block.dataloaders(passages(), bs=8, seq_len=16, num_workers=0, device='cpu')
    config = {**awd_lstm_lm_config, 'emb_sz':16, 'n_hid':24, 'n_layers':2}
    return quiet(language_model_learner(dls, AWD_LSTM, config=config, pretrained=False, metrics=[accuracy,Perplexity()],
                                        opt_func=sgd, lr=1e-2), path)

def text_classifier(seed=0, path='.'):
    "`text_classifier_learner` on AWD-LSTM: is it the licence?"
    set_seed(seed)
    block = DataBlock((TextBlock.from_df('text', seq_len=16, **tokens), CategoryBlock), get_x=ColReader('text'),
                      get_y=ColReader('label'), splitter=RandomSplitter(.25, seed=0))
    dls = block.dataloaders(passages(), bs=8, num_workers=0, device='cpu')
    config = {**awd_lstm_clas_config, 'emb_sz':16, 'n_hid':24, 'n_layers':2}
    return quiet(text_classifier_learner(dls, AWD_LSTM, seq_len=16, config=config, pretrained=False, lin_ftrs=[8],
                                         metrics=accuracy, opt_func=sgd, lr=1e-2), path)

class Net(Module):
    "Two groups of parameters, BatchNorm and dropout"
    def __init__(self):
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                                  nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(.2), nn.Linear(128, 10))
    def forward(self, x): return self.head(self.body(x))

def body_and_head(m): return [params(m.body), params(m.head)]

def torch_loaders(seed=0, path='.'):
    "`Learner` on torch's DataLoaders"
    set_seed(seed)
    def dl(split, n, **kwargs):
        return torch.utils.data.DataLoader(TensorDataset(*(t[:n] for t in digits(split))), 32, **kwargs)
    return quiet(Learner(DataLoaders(dl('train', 250, shuffle=True), dl('tune', 64), device='cpu'), Net(),
                         nn.CrossEntropyLoss(), opt_func=sgd, lr=.05, metrics=accuracy), path)

class TwoByTwo(Module):
    "Takes an image and the ink of its rows, predicts the digit and whether it is odd"
    def __init__(self):
        self.image,self.ink,self.digit,self.odd = nn.Linear(64, 24),nn.Linear(8, 8),nn.Linear(32, 10),nn.Linear(32, 2)
    def forward(self, image, ink):
        h = torch.cat([self.image(image.flatten(1)), self.ink(ink)], 1).relu()
        return self.digit(h),self.odd(h)

def both_losses(preds, digit, odd): return F.cross_entropy(preds[0], digit) + F.cross_entropy(preds[1], odd)
def digit_accuracy(preds, digit, odd): return accuracy(preds[0], digit)

def multi(seed=0, path='.'):
    "`Learner` with two inputs and two outputs"
    set_seed(seed)
    def data(split, n):
        x,y = (t[:n] for t in digits(split))
        return x, x[:,0].sum(2)/8, y, y%2
    dls = loaders(data('train', 256), data('tune', 64))
    dls.n_inp = 2
    return quiet(Learner(dls, TwoByTwo(), both_losses, opt_func=sgd, lr=.05, metrics=digit_accuracy), path)

def stream(seed=0, path='.', dl=partial(torch.utils.data.DataLoader, Stream(), 16)):
    "`Learner` on an IterableDataset whose length nobody knows"
    set_seed(seed)
    return quiet(Learner(DataLoaders(dl(), dl(), device='cpu'), Net(), nn.CrossEntropyLoss(), opt_func=sgd, lr=.05,
                         metrics=accuracy), path)

def stream_with_n(seed=0, path='.'):
    "The documented way: tell fastai's DataLoader how many items make an epoch"
    return stream(seed, path, partial(DataLoader, Stream(), bs=16, n=128))

def series(seed=0, path='.'):
    "tsai's learner, which nobody here wrote: InceptionTime on digits read row by row, eight series of eight steps"
    from tsai.data.core import TSClassification
    from tsai.tslearner import TSClassifier
    set_seed(seed)
    (x,y),splits = [t[:314].numpy() for t in digits('train')],(list(range(250)),list(range(250, 314)))
    learn = TSClassifier(x[:,0], y, splits=splits, tfms=[None,TSClassification()], arch='InceptionTime', bs=32, lr=.05,
                         opt_func=sgd, metrics=accuracy, device=torch.device('cpu'), arch_config=dict(nf=4))
    return quiet(learn, path)

applications = dict(vision_learner=vision, unet_learner=unet, tabular_learner=tabular, collab_learner=collab,
                    language_model_learner=language_model,
    text_classifier_learner=text_classifier) | {'torch DataLoaders':torch_loaders, 'two inputs, two outputs':multi,
                                                'regression without a metric':regression,
    'IterableDataset without a length':stream, 'IterableDataset, DataLoader with n':stream_with_n,
    'tsai TSClassifier':series}

# ---- one small image classifier, and what it is trained with ----

def classifier(seed=0, path='.', cbs=None, n=250, **kwargs):
    "8 batches of digits, the last one smaller"
    set_seed(seed)
    dls = loaders(*([t[:m] for t in digits(s)] for s,m in (('train',n),('tune',64))))
    return quiet(Learner(dls, Net(), **{**dict(loss_func=CrossEntropyLossFlat(), opt_func=sgd, lr=.05, metrics=accuracy,
                                               cbs=cbs), **kwargs}), path)

class CpuMixedPrecision(MixedPrecision):
    """fastai's mixed precision where there is no GPU: the CPU's autocast, a real scaler, and an overflow at the third
    step"""
    def before_fit(self):
        self.autocast, self.learn.scaler, self.scales, self._n = (
            torch.autocast('cpu', dtype=torch.bfloat16),
            torch.amp.GradScaler('cpu', init_scale=2.**10, growth_interval=3), L(), 0)
    def before_step(self):
        self._n += 1
        if self._n==3: next(self.learn.model.parameters()).grad[0] = math.inf
        super().before_step()

class Copies(NonNativeMixedPrecision):
    """fastai's non-native mixed precision where there is no GPU: the optimizer has copies of the parameters, only they
    are not of another precision"""
    name = 'non_native_mixed_precision'
    def __init__(self): super().__init__(loss_scale=1, dynamic=False)
    def before_fit(self):
        if self.learn.opt is None: self.learn.create_opt()
        self.model_pgs,self.master_pgs = fp16.get_master(self.opt)
        self.old_pgs = self.opt.param_lists
        fp16._copy_state(self.learn.opt, self.model_pgs, self.master_pgs)
    def before_batch(self): pass

class SkipsSteps(Callback):
    "A fake scaler: the steps that it skips are those that mixed precision skips after an overflow"
    order,run_valid = MixedPrecision.order,False
    def before_step(self):
        if self.train_iter%8 in (0,5): raise CancelStepException()

class Average(Callback):
    "An exponential moving average of the weights, as third parties write it: swapped in for validation"
    order,run_valid = Recorder.order-1,True
    def before_fit(self): self.shadow = [p.detach().clone() for p in self.learn.model.parameters()]
    def after_step(self):
        for s,p in zip(self.shadow, self.learn.model.parameters()): s.lerp_(p.detach(), .1)
    def _swap(self):
        for s,p in zip(self.shadow, self.learn.model.parameters()):
            s2 = p.detach().clone()
            p.data.copy_(s)
            s.copy_(s2)
    def before_validate(self): self._swap()
    def after_validate(self): self._swap()

class CancelFit(Callback):
    "Ends the fit in the middle of its first epoch"
    run_valid = False
    def after_batch(self):
        if self.train_iter==5: raise CancelFitException()

def after(make, f):
    "The learner of `make`, and then `f` of it"
    def res(seed=0, path='.'):
        learn = make(seed, path)
        return ifnone(f(learn), learn)
    return res

def option(cbs=None, **kwargs):
    "The classifier with the callbacks that `cbs()` makes"
    def res(seed=0, path='.'): return classifier(seed, path, cbs=cbs and cbs(), **kwargs)
    return res

def torch_opt(f, **kwargs): return partial(OptimWrapper, opt=partial(f, **kwargs))

def decays(ps, lr):
    "An optimizer whose groups decay differently"
    opt = SGD(ps, lr=lr, mom=.9)
    opt.set_hypers(wd=[.1,0.])
    return opt

def compiled(backend): return after(option(), lambda learn: learn.model.compile(backend=backend))
def frozen(learn):
    learn.create_opt()
    learn.freeze()
def fine_tuned(learn):
    learn.freeze()
    learn.fit(1)
    learn.unfreeze()
def with_bar(learn): learn.add_cbs([ProgressCallback(), ShowGraphCallback()])

def tensorboard(seed=0, path='.'):
    from fastai.callback.tensorboard import TensorBoardCallback
    return classifier(seed, path, cbs=TensorBoardCallback(Path(path)/'runs', log_preds=False))

def wandb(seed=0, path='.'):
    "Weights & Biases, offline"
    import wandb, fastai.callback.wandb as fw
    # fastai 2.8.12 asks fastcore 2.2 for the arguments of numbers, which is an error
    fw.init_args = lambda o: init_args(o) if hasattr(o, '__dict__') else {}
    if wandb.run is None:
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, True)
        wandb.init(mode='offline', dir=folder, settings=wandb.Settings(console='off', silent=True))
    return classifier(seed, path, cbs=fw.WandbCallback(log_preds=False))

options = {
    'plain': option(),
    'to_fp16': after(option(), lambda learn: learn.to_fp16()),
    'to_bf16': after(option(), lambda learn: learn.to_bf16()),
    'bfloat16 autocast on the CPU, a scaler that skips a step': option(CpuMixedPrecision),
    'a scaler that skips steps': option(SkipsSteps),
    'GradientAccumulation, uneven last window': option(lambda: GradientAccumulation(96)),
    'GradientClip': option(lambda: GradientClip(.5)),
    'fp16, accumulation and clipping at once': option(lambda: [CpuMixedPrecision(), GradientAccumulation(64),
        GradientClip(.5)]),
    'MixUp': option(MixUp),
    'CutMix': option(CutMix),
    'label smoothing': option(loss_func=LabelSmoothingCrossEntropyFlat()),
    'SaveModelCallback': option(lambda: SaveModelCallback('accuracy', with_opt=True)),
    'EarlyStoppingCallback': option(lambda: EarlyStoppingCallback(min_delta=1e9, patience=1)),
    'ReduceLROnPlateau': option(ReduceLROnPlateau),
    'TerminateOnNaNCallback': option(TerminateOnNaNCallback),
    'CSVLogger': option(CSVLogger),
    'ProgressCallback, ShowGraphCallback': after(option(), with_bar),
    'ActivationStats': option(lambda: ActivationStats(with_hist=True)),
    'TensorBoardCallback': tensorboard,
    'WandbCallback, offline': wandb,
    'ShortEpochCallback': option(lambda: ShortEpochCallback(.5)),
    'a callback that cancels the fit': option(CancelFit),
    'frozen body, BnFreeze': after(option(BnFreeze, splitter=body_and_head, train_bn=False), frozen),
    'trained frozen, then unfrozen, as fine_tune does': after(option(splitter=body_and_head, lr=slice(.005,.05)),
        fine_tuned),
    'a moving average of the weights': option(Average),
    'ParamScheduler of wd': option(lambda: ParamScheduler({'wd': SchedLin(.1, 0.)})),
    'ParamScheduler of lr': option(lambda: ParamScheduler({'lr': SchedCos(.1, 0.)})),
    'model.compile()': compiled('eager'),
    'model.compile() through AOT autograd': compiled('aot_eager'),
    'ChannelsLast': option(ChannelsLast),
    'an optimizer that has copies of the parameters': option(Copies),
    'groups with their own LRs': option(splitter=body_and_head, lr=slice(.005,.05)),
    'groups with their own wd': option(opt_func=decays, splitter=body_and_head),
    'Adam': option(opt_func=Adam, lr=.003),
    'ranger': option(opt_func=ranger, lr=.003),
    'Lookahead': option(opt_func=lambda ps, lr: Lookahead(SGD(ps, lr=lr, mom=.9)), lr=.05),
    'Larc': option(opt_func=Larc, lr=.05),
    'Lamb': option(opt_func=Lamb, lr=.003),
    'SGD without momentum': option(opt_func=SGD),
    'torch SGD': option(opt_func=torch_opt(torch.optim.SGD, momentum=.9, nesterov=True)),
    'torch AdamW': option(opt_func=torch_opt(torch.optim.AdamW), lr=.003),
    'torch RMSprop': option(opt_func=torch_opt(torch.optim.RMSprop, momentum=.9), lr=.003),
    'torch Adagrad': option(opt_func=torch_opt(torch.optim.Adagrad), lr=.01),
    'torch NAdam': option(opt_func=torch_opt(torch.optim.NAdam), lr=.003),
}
# packages that a case cannot do without; the tests do not install tsai, which wants older versions of what they have
needs = {'TensorBoardCallback':'tensorboard', 'WandbCallback, offline':'wandb', 'tsai TSClassifier':'tsai'}

# ---- learners that are trained in another way than a classifier ----

def digit_images(n=256, n_valid=64): return [tuple(t[:m] for t in digits(s)) for s,m in (('train',n), ('tune',n_valid))]

def learner_of_tensors(make_target, model, loss_func, seed=0, path='.', lr=.05, **kwargs):
    "Digits with the target that `make_target(x, y)` makes of them; 8 batches an epoch"
    set_seed(seed)
    dls = loaders(*((x, make_target(x, y)) for x,y in digit_images()))
    return quiet(Learner(dls, model(), loss_func, **{**dict(opt_func=sgd, lr=lr), **kwargs}), path)

def dense(n_out, n_hidden=24):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_out))

def gan(seed=0, path='.'):
    "`GANLearner`: digits from noise; generator and critic take turns, and what is not trained is frozen"
    from fastai.vision.gan import GANLearner, gan_loss_from_func
    set_seed(seed)
    def noise_and_images(x): return torch.randn(len(x), 8), x.clamp(-1, 1)
    dls = loaders(*(noise_and_images(x) for x,_ in digit_images()))
    generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Tanh(), nn.Unflatten(1, (1,8,8)))
    critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LeakyReLU(.2), nn.Linear(32, 1), nn.Flatten(0))
    losses = gan_loss_from_func(nn.L1Loss(), nn.BCEWithLogitsLoss())
    return quiet(GANLearner(dls, generator, critic, *losses, opt_func=sgd, lr=.02), path)

def multi_label(seed=0, path='.'):
    "Which of twelve pixels are dark and which digit it is: 22 labels, most of them rare"
    def labels(x, y): return torch.cat([F.one_hot(y, 10).float(), (x.flatten(1)[:,16:28]>.9).float()], 1)
    return learner_of_tensors(labels, partial(dense, 22), BCEWithLogitsLossFlat(), seed, path,
                              metrics=[accuracy_multi, F1ScoreMulti()])

class Pixels(Module):
    def __init__(self):
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    def forward(self, x): return self.net(x)

def rare_pixels(seed=0, path='.'):
    "Segmentation: the darkest pixels, three in a hundred, with a weighted loss"
    def mask(x, y): return (x[:,0]>.99).long()
    loss = CrossEntropyLossFlat(axis=1, weight=tensor([1., 20.]))
    return learner_of_tensors(mask, Pixels, loss, seed, path, metrics=[Dice(), JaccardCoeff()])

def workers(seed=0, path='.'):
    "A worker process that stays from epoch to epoch"
    set_seed(seed)
    def dl(data, shuffle):
        return DataLoader(list(zip(*data)), bs=32, shuffle=shuffle, num_workers=1, persistent_workers=True)
    train,valid = digit_images(128, 32)
    dls = DataLoaders(dl(train, True), dl(valid, False), device='cpu')
    return quiet(Learner(dls, Net(), CrossEntropyLossFlat(), opt_func=sgd, lr=.05, metrics=accuracy), path)

class SparseWords(Module):
    "Reads an image as 64 words, each a grey with its place: the greys' vectors are given, those of the places learn"
    def __init__(self):
        self.given,self.learned = nn.Embedding(17, 6),nn.Embedding(17*64, 6, sparse=True)
        self.given.weight.requires_grad_(False)
        self.head = nn.Linear(6, 10)
    def forward(self, x):
        greys = ((x.flatten(1)+1)*8).round().long().clamp(0, 16)
        places = torch.arange(64)*17 + greys
        return self.head((self.given(greys) + self.learned(places)).sum(1)/8)

def sparse(seed=0, path='.'):
    "A frozen embedding and one with sparse gradients, under torch's SGD without momentum"
    return learner_of_tensors(lambda x,y: y, SparseWords, CrossEntropyLossFlat(), seed, path, metrics=accuracy,
                              opt_func=torch_opt(torch.optim.SGD))

def log_density(pred, y):
    "Negative log-likelihood of a normal distribution: below 0 where the prediction is sure and right"
    mean,log_sd = pred.split(1, 1)
    return (log_sd + ((y-mean)/log_sd.exp())**2/2).mean() - 3

def negative_loss(seed=0, path='.'):
    "A density that is learned by its likelihood: the loss is negative"
    return learner_of_tensors(lambda x,y: x.mean((1,2,3))[:,None], partial(dense, 2), log_density, seed, path, lr=.005)

def unscaled(seed=0, path='.'):
    "A regression with targets of tens of thousands, as they come"
    def income(x, y): return 20_000 + 3_000*y.float()[:,None]
    return learner_of_tensors(income, partial(dense, 1), MSELossFlat(), seed, path, lr=1e-6, metrics=[mae, rmse])

def precision_of_9(preds, y):
    "Precision as many write it: an error where the class was never predicted"
    said = preds.argmax(1)==9
    return int((said & (y==9)).sum())/int(said.sum())

class NoNines(Module):
    "A net that never says 9 before it is trained"
    def __init__(self):
        self.net = dense(10)
        self.net[3].bias.data[9] = -9.
    def forward(self, x): return self.net(x)

def raising_metric(seed=0, path='.'):
    "A metric that raises before the first step"
    def nines(x, y): return torch.where(y>4, 9, y)
    return learner_of_tensors(nines, NoNines, CrossEntropyLossFlat(), seed, path, lr=.2, metrics=precision_of_9)

class Rotations(Callback):
    "Pre-training: turn the images, and predict how far with a head of its own; the old head comes back after the fit"
    def __init__(self): self.head = nn.Linear(128, 4)
    def before_fit(self):
        self.old = self.learn.model.head,self.learn.loss_func
        self.learn.model.head,self.learn.loss_func = self.head,CrossEntropyLossFlat()
        # validate() comes here before there is an optimizer
        trained = self.learn.opt and self.learn.opt.all_params().itemgot(0)
        if trained and not any(p is self.head.weight for p in trained): self.learn.create_opt()
    def before_batch(self):
        turns = torch.arange(len(self.x))%4
        turned = torch.stack([x.rot90(int(k), (1,2)) for x,k in zip(self.x, turns)])
        self.learn.xb,self.learn.yb = (turned,),(turns,)
    def after_fit(self): self.learn.model.head,self.learn.loss_func = self.old

def self_supervised(seed=0, path='.'):
    "A callback that swaps head, loss and optimizer while it pre-trains"
    set_seed(seed)
    return classifier(seed, path, cbs=Rotations(), metrics=accuracy)

class Prototypes(Callback):
    "Ten points that an optimizer of their own, of which no schedule knows, draws to the classes' outputs"
    run_valid = False
    def __init__(self):
        self.points = nn.Parameter(torch.zeros(10, 10))
        self.own = torch.optim.Adam([self.points], lr=.01)
    def state_dict(self): return dict(points=self.points.detach(), own=self.own.state_dict())
    def load_state_dict(self, sd):
        self.points.data.copy_(sd['points'])
        self.own.load_state_dict(sd['own'])
    def after_loss(self):
        self.learn.loss_grad = self.learn.loss_grad + .1*F.mse_loss(self.points[self.y.long()], self.pred)
    def after_step(self):
        self.own.step()
        self.own.zero_grad()

class Turns(Callback):
    "Alternating optimisation: body and head are trained on every other batch"
    run_valid = False
    def before_batch(self):
        for k,part in enumerate((self.model.body, self.model.head)): part.requires_grad_(self.train_iter%2==k)
    def after_fit(self): self.model.requires_grad_(True)

class Rows(Module):
    "Reads an image row by row, and goes on with the hidden state of the last batch"
    def __init__(self): self.rnn,self.out,self.h = nn.GRU(8, 16, batch_first=True),nn.Linear(16, 10),None
    def reset(self): self.h = None
    def forward(self, x):
        h = None if self.h is None or self.h.shape[1]!=len(x) else self.h
        out,h = self.rnn(x[:,0], h)
        self.h = h.detach()
        return self.out(out[:,-1])

def recurrent(seed=0, path='.'):
    "A recurrent net that keeps its state from batch to batch, and `ModelResetter`"
    return learner_of_tensors(lambda x,y: y, Rows, CrossEntropyLossFlat(), seed, path, metrics=accuracy,
                              cbs=ModelResetter())

class ReadsStrings(Module):
    def __init__(self): self.net = dense(10)
    def forward(self, texts): return self.net(torch.tensor([[float(v) for v in o.split()] for o in texts]))

def strings(seed=0, path='.'):
    "Inputs that are no tensors: a batch is a tuple of strings"
    set_seed(seed)
    def data(x, y): return [(' '.join(f'{v:.2f}' for v in o.flatten().tolist()), t) for o,t in zip(x, y)]
    train,valid = (data(*o) for o in digit_images(128, 32))
    dls = DataLoaders(DataLoader(train, bs=32, shuffle=True, num_workers=0), DataLoader(valid, bs=32, num_workers=0),
                      device='cpu')
    return quiet(Learner(dls, ReadsStrings(), CrossEntropyLossFlat(), opt_func=sgd, lr=.05, metrics=accuracy), path)

kinds = {
    'GANLearner': gan,
    'multi-label, rare labels': multi_label,
    'segmentation, a rare class': rare_pixels,
    'persistent workers': workers,
    'a frozen embedding, sparse gradients': sparse,
    'a negative loss': negative_loss,
    'regression, target not scaled': unscaled,
    'a metric that raises before the first step': raising_metric,
    'self-supervised, swaps head and optimizer': self_supervised,
    'a second optimizer that nothing schedules': option(Prototypes),
    'alternating optimisation': option(Turns, splitter=body_and_head),
    'a callback that takes the step itself': option(OwnStep),
    'a recurrent net that keeps its state': recurrent,
    'inputs that are strings': strings,
}
