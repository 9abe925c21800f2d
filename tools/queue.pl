#!/usr/bin/env perl
# Runs jobs on a Grid Engine cluster, as an array. Each job has its own log.

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
in q/ beside the logs. All jobs run even if one fails or is lost; then the exit code is 1. After a signal, which cancels
the jobs, it is 2.

  --max-jobs-run N, -tc N  jobs at once; the smallest value counts
  --config FILE            translates options for qsub (default: conf/queue.conf)
  --mem, --num-threads, --gpu, or any other --NAME VALUE that the conf has
  -x VALUE                 any other option with one dash is passed to qsub
END

run_on_cluster({
    conf => 'queue.conf', usage => $USAGE, task_id => 'SGE_TASK_ID',
    flags => { '-pe' => 2, map { $_ => 0 } qw(-V -cwd -notify -hard -soft -verify -clear) },
    pass_on => [],
    number => qr/^(\d+)(?:\.\d+-\d+:\d+)?\z/, # -terse: number.first-last:step
    submission => \&submission, find => \&find, look => 'qstat -r | grep -B 1', states => \&states, why => \&why,
    cancel => sub { capture(30, 'qdel', $_[0]) },
});

# -C '': qsub must not read options from the script, since the arguments may look like some.
sub submission {
    my ($job, $script, $limit) = @_;
    my $log = job_log($job, '$TASK_ID');
    $log = getcwd() . "/$log" unless $log =~ m{^/};
    my @limit = defined $limit ? ('-tc', $limit) : ();
    my @array = ('-t', "$job->{first}-$job->{last}", @limit);
    return (qw(-terse -j y -C), '', @array, '-o', $log, '-N', job_name($job), $script);
}

sub find {
    my ($name) = @_;
    my ($jobs, $said) = listed();
    return (undef, $said) unless $jobs;
    return (undef, 'qstat -r does not show the names of jobs') if grep { !defined $_->{name} } @$jobs;
    my %numbers = map { $_->{number} => 1 } grep { $_->{name} eq $name } @$jobs;
    return [sort { $b <=> $a } keys %numbers];
}

# Grid Engine lists a task as running when its host is down. It only reports that the host does not answer.
sub states {
    my ($number, $name) = @_;
    my $states = tasks($number, $name) or return;
    my $unheard = grep({ $_ =~ /r/ } values %$states) ? tasks($number, $name, qw(-qs u)) : {};
    return {
        (map { $_ => judge_state($states->{$_}) } keys %$states),
        (map { $_ => ['unheard', 'Grid Engine gets no answer from its host'] } keys %{ $unheard || {} }),
    };
}

# The states of an array's tasks, by their numbers; undef without an answer.
sub tasks {
    my ($number, $name, @which) = @_;
    my ($jobs) = listed(qw(-g d), @which);
    return unless $jobs;
    my @tasks = grep { $_->{number} eq $number && ($_->{name} // $name) eq $name && $_->{task} =~ /^\d+$/ } @$jobs;
    return { map { $_->{task} => $_->{state} } @tasks };
}

# The jobs of our user, as hashes: number, state, task (or tasks), and name. The full name is on a line of its own, since
# qstat shortens it in the job's line. Without an answer, returns undef and the output of qstat.
sub listed {
    my @which = @_;
    my ($code, $answer, $errors) = capture(30, qw(qstat -r), @which, '-u', scalar getpwuid $<);
    return (undef, "$answer $errors") if $code != 0;
    my @jobs;
    for my $line (split /\n/, $answer) {
        my @words = split ' ', $line;
        if (@words > 5 && $words[0] =~ /^\d+$/) {
            push @jobs, { number => $words[0], state => $words[4], task => $words[-1] };
        } elsif (@jobs && $line =~ /^\s*Full jobname:\s*(.*?)\s*$/) {
            $jobs[-1]{name} = $1;
        }
    }
    return \@jobs;
}

# E: Grid Engine could not start the task, and keeps it in the queue. d: a user has deleted it.
sub judge_state {
    my ($state) = @_;
    return ['dead', "state $state: Grid Engine could not start it"] if $state =~ /E/;
    return ['leaving', "state $state: it was deleted"] if $state =~ /d/;
    return ['alive', ''];
}

# Reads the accounting, which has a record of each task some seconds after its end. Not every site lets users read it.
sub why {
    my ($number, $name) = @_;
    my ($code, $answer, $errors) = capture(30, qw(qacct -j), $number);
    return if $code != 0 && "$answer\n$errors" !~ /not found/;
    my (%why, $task);
    my $job_name = '';
    for my $line (split /\n/, $answer) {
        $job_name = $1 if $line =~ /^jobname\s+(\S+)/;
        $task = $1 if $line =~ /^taskid\s+(\d+)/;
        $why{$task} = $1 if $job_name eq $name && $line =~ /^failed\s+\d+\s*:?\s*(.*?)\s*$/;
    }
    return \%why;
}
