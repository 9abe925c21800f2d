#!/usr/bin/env perl
# Runs jobs on a Grid Engine cluster, as an array, each with its log.

use strict;
use warnings;

use Cwd qw(getcwd);
use File::Basename qw(dirname);
use lib dirname(__FILE__);
use JobRunner qw(job_log job_name);
use Scheduler qw(run_on_cluster capture);

my $USAGE = <<'END';
Usage: queue.pl [options] [JOB=1:N] LOG COMMAND [ARGUMENT...]

    queue.pl --mem 4G exp/log/train.log python -m wespeaker_lite.bin.train --config conf/x.yaml
    queue.pl --max-jobs-run 4 -q all.q JOB=1:8 exp/log/split.JOB.log sort data/JOB/list \| uniq \> data/JOB/sorted
    queue.pl --gpu 1 --num-threads 2 JOB=1:8 exp/log/extract.JOB.log extract.sh JOB

Runs COMMAND as run.pl does, but by qsub, and waits for it. Each job sources ./path.sh if there is one. The script is
in q/ beside the logs. All jobs run even if one fails, or is lost: then the exit code is 1. A signal cancels: 2.

  --max-jobs-run N, -tc N  jobs at once; the smallest counts
  --config FILE            what the options mean (default: conf/queue.conf)
  --mem, --num-threads, --gpu, or any other --NAME VALUE that the conf knows
  -x VALUE                 any other option with one dash goes to qsub as it is
END

run_on_cluster({
    conf => 'queue.conf', usage => $USAGE, task_id => 'SGE_TASK_ID',
    flags => { '-pe' => 2, map { $_ => 0 } qw(-V -cwd -notify -hard -soft -verify -clear) },
    submission => \&submission, states => \&states, cancel => sub { capture(30, 'qdel', $_[0]) },
});

# -C '': no line of the script is an option, whatever the arguments hold.
sub submission {
    my ($job, $script, $limit) = @_;
    my $log = job_log($job, '$TASK_ID');
    $log = getcwd() . "/$log" unless $log =~ m{^/};
    my @limit = defined $limit ? ('-tc', $limit) : ();
    my @array = ('-t', "$job->{first}-$job->{last}", @limit);
    return (qw(-terse -j y -C), '', @array, '-o', $log, '-N', job_name($job), $script);
}

sub states {
    my ($number) = @_;
    my ($code, $answer) = capture(30, qw(qstat -g d -u), scalar getpwuid $<);
    return if $code != 0;
    my %states;
    for my $line (split /\n/, $answer) {
        my @words = split ' ', $line;
        next unless @words > 5 && $words[0] eq $number && $words[-1] =~ /^\d+$/;
        $states{ $words[-1] } = judge_state($words[4]);
    }
    return \%states;
}

# E: Grid Engine could not start it, and would keep it for ever; d: somebody has deleted it.
sub judge_state {
    my ($state) = @_;
    return ['dead', "state $state: Grid Engine could not start it"] if $state =~ /E/;
    return ['leaving', "state $state: it was deleted"] if $state =~ /d/;
    return ['alive', ''];
}
