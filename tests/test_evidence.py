"The rules of the evidence page."
import math, sys
from pathlib import Path
import numpy as np, pytest
from scipy import stats
sys.path.insert(0, str(Path(__file__).parents[1]/'nbs'/'tutorials'))
from evidence_rules import *
from stored_results import unpack

# ---- intervals ----

def test_one_look_is_students_interval():
    x = [1.,2.,4.,7.]
    mean,low,high = confidence_interval(x)
    assert (low,high)==pytest.approx(stats.t.interval(.95, 3, np.mean(x), stats.sem(x))) and mean==3.5

def test_intervals_hold_together():
    "Of ten groups without an effect, one or more is declared to have one in at most 5 % of the experiments"
    rng = np.random.RandomState(0)
    def wrong(looks): return any(judge(confidence_interval(x, looks), 'above') for x in rng.randn(10, 6))
    def any_wrong(looks): return np.mean([wrong(looks) for _ in range(400)])
    alone,together = any_wrong(1),any_wrong(10)
    assert alone>.25 and together<.09

def test_a_spread_from_several_settings():
    "Two settings of three seeds: the root of the mean square around their own means, four degrees of freedom"
    a,b = [1.,2.,3.],[10.,14.,18.]
    sd,df = pooled_spread([a, b])
    assert pooled_spread([a, b, a])==(sd, df) # the same runs under two names are no further evidence
    assert df==4 and sd==pytest.approx(math.sqrt((np.var(a, ddof=1)+np.var(b, ddof=1))/2))
    mean,low,high = confidence_interval(a, 5, (sd, df))
    assert (low,high)==pytest.approx(stats.t.interval(.99, 4, mean, sd/math.sqrt(3)))
    assert confidence_interval(a, 5)==confidence_interval(a, 5, pooled_spread([a]))

def test_one_seed_has_no_interval():
    assert confidence_interval([3.])==(3.,-math.inf,math.inf)

@pytest.mark.parametrize('looks', [1,2,7])
def test_the_interval_of_a_median_with_runs_that_never_got_there_covers_it(looks):
    "The coverage for a continuous distribution is exact: that of the binomial"
    x = np.r_[-math.inf, np.arange(11.)]
    _,low,high = confidence_interval(x, looks)
    below = np.searchsorted(np.sort(x), low)
    assert 2*stats.binom.cdf(below, 12, .5)<=.05/looks and below==11-np.searchsorted(np.sort(x), high)
    assert 2*stats.binom.cdf(below+1, 12, .5)>.05/looks

def test_too_few_runs_for_an_interval_of_the_median():
    assert confidence_interval([-math.inf,1.,2.], 5)[1:]==(-math.inf,math.inf)

# ---- sides ----

@pytest.mark.parametrize(
    'low,high,above,below,level,not_below',
    [(.1, .9, 1, -1, 0, 1), (-.9, -.1, -1, 1, 0, 0), (-.2, .3, 0, 0, 1, 1), (-.9, .9, 0, 0, 0, 0),
     (.6, .9, 1, -1, -1, 1), (-.9, -.6, -1, 1, -1, -1), (.1, .4, 1, -1, 1, 1), (-math.inf, math.inf, 0, 0, 0, 0)],
)
def test_sides(low, high, above, below, level, not_below):
    got = [judge((0, low, high), r) for r in ('above','below','level','not below')]
    assert got==[above,below,level,not_below]

def test_noise_is_not_level():
    "A wide interval around zero says nothing; a narrow one says level, even if it leaves zero out"
    assert judge((0, -3, 3), 'level')==0 and judge((.2, .1, .3), 'level')==1

def test_unknown_rule():
    with pytest.raises(ValueError, match='rule'): judge((0,0,0), 'better')

# ---- verdicts ----

yes,no,unclear = [1.,1.1,.9,1.],[-1.,-1.1,-.9,-1.],[1.,-1.,2.,-2.]
def claim(*settings, **kwargs): return Claim('A claim', '', '', 'digits', dict(enumerate(settings)), **kwargs)

@pytest.mark.parametrize('settings,word', [
    ([yes,yes],'reproduced'), ([yes,no],'in part'), ([yes,unclear],'in part'), ([no,no],'contradicted'),
    ([no,unclear],'not reproduced'), ([unclear,unclear],'open'),
    ([True,True],'reproduced'), ([True,False],'in part'), ([False],'contradicted')])
def test_words(settings, word): assert claim(*settings).word==word

def test_what_drops_out_is_counted_and_shown():
    c = claim(yes, yes, dropped={'Fashion-MNIST':'2 of 4 runs got there'})
    assert c.counts==(2,0,0,1) and c.word=='in part'
    assert '1 dropped out' in c.verdict and 'Fashion-MNIST: dropped out, 2 of 4 runs got there' in c.numbers()
    assert claim(no, dropped={'x':'y'}).word=='not reproduced'

def test_never_is_against_the_claim():
    "No interval is needed where no seed got there; where some did, the median decides"
    c = claim([-math.inf]*5, yes, unit='times')
    assert c.sides=={0:-1, 1:1} and '0: never, with 5 seeds' in c.numbers()
    assert len(c.measured)==1 and claim([-math.inf,1.,1.], unit='times').sides[0]==0

def test_a_rule_scored_on_what_it_was_made_with_is_calibration():
    assert claim(True, True, apart='calibration').word=='calibration'

def test_more_settings_make_each_harder():
    "The same values are for the claim alone, and open among many"
    x = [.5,1.,1.5,1.2]
    assert claim(x).sides[0]==1 and claim(*[x]*20).sides[0]==0

def test_settings_that_are_alike_share_their_spread():
    "Each interval is as wide as the others of its group; a setting of no group has its own"
    x,y,z = [1.,2.,3.],[1.9,2.,2.1],[5.,5.1,5.2]
    found = claim(x, y, z, alike={0:'few images', 1:'few images'}).intervals
    width = {k:high-low for k,(_,low,high) in found.items()}
    assert width[0]==pytest.approx(width[1]) and found[2]==confidence_interval(z, 3)

def test_numbers_that_are_shown_elsewhere(): assert not claim(yes, brief=True).numbers()

def test_scope_is_in_the_verdict(): assert claim(yes).verdict=='**reproduced**<br>digits'

def test_single_cases_are_no_looks(): assert claim(yes, True, False).intervals[0]==confidence_interval(yes)

def test_a_claim_needs_a_setting():
    with pytest.raises(ValueError, match='no settings'): claim()

def test_units():
    assert claim([math.log(2)]*2, unit='times').text((math.log(2), 0., math.log(4)))=='2.00 (1.00 to 4.00)'
    assert claim(yes).text((1., .5, 1.5))=='+1.00 (+0.50 to +1.50)'
    assert claim(yes, unit='times').text((-math.inf,-math.inf,0.))=='never (never to 1.00)'

# ---- steps to an accuracy ----

def lines(arm, n, *curves):
    return [f"{arm}|{n}|{s}|finished|{10*n}|" + ';'.join(f'1,1,{a}' for a in c) for s,c in enumerate(curves)]

def test_speedup():
    "A fast run needs 20 of the slow one's 40 steps, and with the second seed it never gets there"
    c = unpack(lines('fast', 3, [.5,.8,.9], [.5,.6,.7]) + lines('slow', 5, [.1,.2,.3,.8,.8], [.1,.2,.3,.4,.8]))
    assert steps_to_reach(c, 'fast', 3, .8).tolist()==[20,math.inf]
    a,b = log_speedup(c, ('fast',3), ('slow',5), .8)
    assert a==pytest.approx(math.log(2)) and b==-math.inf
    with pytest.raises(ValueError, match='with every seed'): log_speedup(c, ('slow',5), ('fast',3), .8)

# ---- the map of regimes ----

def regimes(folder, *runs):
    "A log with these runs: schedule, LR, epochs, split, seed, accuracy; perhaps a dict with images, wd, machine"
    from regime_map import Regimes
    from superconv_fastai.runs import RunLog
    folder.mkdir(exist_ok=True)
    with RunLog('study', folder/'log.jsonl', dict(study='regimes')) as log:
        for schedule,lr,n,split,seed,acc,*more in runs:
            o = dict(images=2500, wd=1e-4, machine='A') | (more[0] if more else {})
            log.add(('cifar10', o['images'], schedule, lr, o['wd'], n, split, seed),
                    dict(accuracy=acc, status='finished', machine=o['machine']))
    return Regimes(folder/'log.jsonl')

pair = [('cycle',3.,25,'test',0,.47), ('multistep',.35,25,'test',0,.45), ('multistep',.35,200,'test',0,.44)]

def search(schedule, n, scores, **more):
    "Runs of a search: accuracy by LR"
    return [(schedule, lr, n, 'tune', 1000, acc, more) for lr,acc in scores.items()]

def test_gain_is_paired_by_seed_and_kind_of_machine(tmp_path):
    r = regimes(tmp_path, *pair, ('cycle', 3., 25, 'test', 1, .40), ('cycle', 3., 25, 'test', 2, .40),
                ('multistep', .35, 25, 'test', 2, .1, dict(machine='B')))
    assert r.gain('cifar10', 2500, 25, 25)==pytest.approx([2.]) # seed 1 has no partner, seed 2 one from elsewhere
    t = r.table().set_index(['epochs','against'])
    assert (
        t.gain[25, 'as many'] == pytest.approx(2)
        and t.gain[25, '8 times as many'] == pytest.approx(3)
        and len(t) == 2
        and set(t.lr) == {"the paper's"}
    )

def test_an_unfinished_search_has_no_tuned_lr(tmp_path):
    tries = search('multistep', 25, {.1:.41, .35:.44, 1.:.45})
    assert regimes(tmp_path, *pair, *tries).tuned_lr('cifar10', 2500, 'multistep', 25) is None

def test_tuned_lr(tmp_path):
    tries = search('multistep', 25, {.1:.41, .35:.44, 1.:.45, 3.5:.2})
    r = regimes(tmp_path, *pair, *tries, ('multistep', 1., 25, 'test', 0, .46))
    assert r.tuned_lr('cifar10', 2500, 'multistep', 25)==1. and r.tuned_lr('cifar10', 2500, 'multistep', 200) is None
    assert r.scores('cifar10', 2500, 'multistep, tuned', 25).tolist()==[.46]

def test_lr_and_weight_decay_are_found_together(tmp_path):
    "The best weight decay has an LR of its own; without a neighbour above it the search is not finished"
    def at(wd, best): return search('cycle', 75, {1.:best-.02, 3.:best, 10.:best-.01}, wd=wd)
    some = sum((at(wd, best) for wd,best in ((1e-4,.40), (3e-4,.41), (1e-3,.42), (3e-3,.43))), [])
    cell = 'cifar10',2500,'cycle',200
    r = regimes(tmp_path/'some', *pair, *some)
    assert r.tuned_lr_wd(*cell)==(None,None) and r.scores('cifar10', 2500, 'cycle, tuned with wd', 200).empty
    r = regimes(tmp_path/'all', *pair, *some, *at(1e-2, .41), ('cycle', 3., 200, 'test', 0, .48, dict(wd=3e-3)))
    assert r.tuned_lr_wd(*cell)==(3.,3e-3)
    assert r.scores('cifar10', 2500, 'cycle, tuned with wd', 200).tolist()==[.48]

def test_the_best_length_is_chosen_on_training_items(tmp_path):
    "At 200 and 600 epochs multistep is scored with the LR of 75; its best length is known when all were tried"
    tops = (8,.43),(25,.44),(75,.45)
    some = sum((search('multistep', n, {.1:.40, .35:top, 1.:.41}) for n,top in tops), [])
    some += search('multistep', 200, {.35:.47})
    assert regimes(tmp_path/'some', *pair, *some).best_length('cifar10', 2500) is None
    cycle = search('cycle', 25, {1.:.4, 3.:.45, 10.:.4})
    r = regimes(tmp_path/'all', *pair, *some, *cycle, *search('multistep', 600, {.35:.46}))
    assert r.best_length('cifar10', 2500)==200
    t = r.table().set_index(['lr','against'])
    assert t.gain['tuned', 'its best length']==pytest.approx(3) # 47 against 44, the test score at 200 epochs

def test_slopes_over_the_size_of_the_training_set(tmp_path):
    "Three points more with 1,000 images than with 10,000: three points fewer for each ten times more"
    sizes = [(s, lr, 25, 'test', 0, acc, dict(images=n)) for n,gain in ((1000,.05), (10_000,.02))
             for s,lr,acc in (('cycle', 3., .4+gain), ('multistep', .35, .4))]
    slope,n = regimes(tmp_path/'two', *sizes).slopes('cifar10', 25, 25)
    assert slope.tolist()==pytest.approx([-3.]) and n==2
    assert regimes(tmp_path/'one', *pair).slopes('cifar10', 25, 25)[1]==0 # one size has no slope

def test_a_tie_of_lengths_is_the_shortest(tmp_path):
    some = sum((search('multistep', n, {.1:.40, .35:top, 1.:.41}) for n,top in ((8,.43), (25,.45), (75,.44))), [])
    some += search('multistep', 200, {.35:.45}) + search('multistep', 600, {.35:.40})
    r = regimes(tmp_path/'tie', *pair, *some)
    assert r.by_length('cifar10', 2500).tolist()==[.43,.45,.44,.45,.40] and r.best_length('cifar10', 2500)==25

def test_runs_are_compared_at_the_training_loss_that_most_arms_reach():
    "An arm that never gets there does not take the others out of the comparison"
    from stored_results import StoredFlatness
    study = StoredFlatness.__new__(StoredFlatness)
    study.arms = ['cycle','small LR','multistep']
    study.study = dict(tasks=dict(digits=dict(levels=[.03,.01])))
    def runs(reached): # `reached`: the levels that each arm gets to
        row = dict(sharpness=1.)
        study.runs = [dict(task='digits', arm=a, seed=s, at=dict.fromkeys(reached[a], row))
                      for a in study.arms for s in range(3)]
        return study.level('digits')
    assert runs({'cycle':['0.01','0.03'], 'small LR':[], 'multistep':['0.03']})=='0.03'
    assert runs({a:['0.01','0.03'] for a in study.arms})=='0.01' # of several, the lowest
