#!/usr/bin/env perl
# Runs jobs on a Slurm cluster, as an array. Each job has its own log.

use strict;
use warnings;

use File::Basename qw(dirname);
use lib dirname(__FILE__);
use JobRunner qw(job_log job_name);
use Scheduler qw(run_on_cluster capture);

my $USAGE = <<'END';
Usage: slurm.pl [options] [JOB=1:N] LOG COMMAND [ARGUMENT...]

    slurm.pl --mem 4G exp/log/train.log python -m wespeaker_lite.bin.train --config conf/x.yaml
    slurm.pl --max-jobs-run 4 -p short JOB=1:8 exp/log/split.JOB.log sort data/JOB/list \| uniq \> data/JOB/sorted
    slurm.pl --gpu 1 --num-threads 2 --time 1:00:00 JOB=1:8 exp/log/extract.JOB.log extract.sh JOB

Runs COMMAND as run.pl does, but by sbatch, and waits for it. Each job sources ./path.sh if there is one. The script is
in q/ beside the logs. All jobs run even if one fails or is lost; then the exit code is 1. After a signal, which cancels
the jobs, it is 2.

  --max-jobs-run N, -tc N  jobs at once; the smallest value counts
  --config FILE            translates options for sbatch (default: conf/slurm.conf)
  --mem, --time, --num-threads, --gpu, or any other --NAME VALUE that the conf has
  -x VALUE                 any other option with one dash is passed to sbatch
END

# Slurm's states of a task that has not ended.
my %ALIVE = map { $_ => 1 } qw(PENDING CONFIGURING RUNNING COMPLETING SUSPENDED STOPPED RESIZING SIGNALING STAGE_OUT
    REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT);
# Reasons for which a task would stay pending forever.
my $HOPELESS = qr/launch_failed_requeued_held|launch failed requeued held|DependencyNeverSatisfied|BadConstraints/;

run_on_cluster({
    conf => 'slurm.conf', usage => $USAGE, task_id => 'SLURM_ARRAY_TASK_ID',
    flags => { map { $_ => 0 } qw(-H -I -k -O -Q -s -v) },
    pass_on => [qw(USR1 USR2)], # sbatch --signal=B:USR1@60 and scancel --batch
    number => qr/^(\d+)(?:;\S+)?\z/, # --parsable: number;cluster
    submission => \&submission, find => \&find, look => 'squeue --me --name', states => \&states, why => \&why,
    cancel => sub { capture(30, 'scancel', $_[0]) },
});

# --output is the task's log, since Slurm writes there why it killed a task.
sub submission {
    my ($job, $script, $limit) = @_;
    my $log = job_log({ %$job, log => $job->{log} =~ s/%/%%/gr }, '%a');
    my $array = "$job->{first}-$job->{last}" . (defined $limit ? "%$limit" : '');
    my $name = '--job-name=' . job_name($job);
    return ('--parsable', '--open-mode=append', "--array=$array", "--output=$log", $name, $script);
}

sub find {
    my ($name) = @_;
    my ($code, $answer, $errors) = capture(30, qw(squeue --noheader --format=%F|%U|%j), "--user=$<", "--name=$name");
    my @numbers = map { /^(\d+)\|$<\|\Q$name\E$/ ? $1 : undef } split /\n/, $answer;
    return (undef, "$answer $errors") if $code != 0 || grep { !defined } @numbers;
    return [sort { $b <=> $a } keys %{ { map { $_ => 1 } @numbers } }];
}

sub states {
    my ($number, $name) = @_;
    my @ours = ("--jobs=$number", "--user=$<", "--name=$name");
    my ($code, $answer, $errors) = capture(30, qw(squeue --noheader --array --states=all --format=%K|%T|%r), @ours);
    # Slurm prints only this once it has forgotten the last task.
    return {} if $code != 0 && "$answer\n$errors" =~ /Invalid job id/;
    return if $code != 0;
    return { map { /^(\d+)\|(\w+)\|(.*)$/ ? ($1 => judge_state($2, $3)) : () } split /\n/, $answer };
}

sub why {
    my ($number, $name) = @_;
    my $states = states($number, $name);
    return unless $states && %$states;
    my %words = map { $_ => $states->{$_}[1] } grep { $states->{$_}[0] ne 'alive' } keys %$states;
    return { map { $_ => $words{$_} =~ /^(?:COMPLETED|FAILED)/ ? '' : $words{$_} } keys %words };
}

# Only a COMPLETED task must have a sync file. All other final states are failures.
sub judge_state {
    my ($state, $reason) = @_;
    return ['dead', "$state, $reason"] if $reason =~ $HOPELESS;
    return ['alive', ''] if $ALIVE{$state};
    return ['ended', $state] if $state eq 'COMPLETED';
    return ['dead', $reason =~ /^(?:None|$state)?$/i ? $state : "$state, $reason"];
}
