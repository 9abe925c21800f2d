#!/usr/bin/env perl
# Runs jobs in parallel on this machine. Each job has its own log.

use strict;
use warnings;

use File::Basename qw(dirname);
use lib dirname(__FILE__);
use JobRunner qw(parse_job_line positive_integer job_log job_command job_script log_state prepare_log report_failures
    mark_cancelled cancelling_signals fail);
use POSIX qw(:signal_h :sys_wait_h);

my $USAGE = <<'END';
Usage: run.pl [options] [JOB=1:N] LOG COMMAND [ARGUMENT...]

    run.pl exp/log/train.log python -m wespeaker_lite.bin.train --config conf/x.yaml
    run.pl --max-jobs-run 4 JOB=1:8 exp/log/split.JOB.log sort data/JOB/list \| uniq \> data/JOB/sorted
    run.pl --gpu 1 JOB=1:8 exp/log/extract.JOB.log extract.sh JOB

Runs COMMAND with bash (with pipefail), once for every number of the range. The number replaces JOB, or any other name
of the range, in LOG and in all words. Only words that are an operator of bash (\| \; \> \&\&) or a redirection (\>file)
have a special meaning; all others are passed on unchanged. All jobs run even if one fails; then the exit code is 1.
After a signal, which cancels the jobs, it is 2.

  --max-jobs-run N, -tc N  jobs at once; the smallest value counts (default: one per CPU; with --gpu, as many as GPUs allow)
  --gpu N                  give each running job N GPUs of its own, by CUDA_VISIBLE_DEVICES. If you or Slurm have set
                           it, its GPUs are used, else the free ones that nvidia-smi lists, including MIG instances
  --pick CLASS             which jobs to run, by the logs of the last run: all (default), failed (and incomplete),
                           incomplete (killed or never started; failed jobs are not run and still count as failed)
  --mem, --time, --num-threads, -q, -l, -pe, ...  are for clusters, and ignored here
END

my %IGNORED = map { $_ => 1 } qw(--mem --time --num-threads -q -l -pe -P -p -j -sync -V -cwd);
my %VALUES = ('-V' => 0, '-cwd' => 0, '--help' => 0, '-h' => 0, '-pe' => 2);

my ($limit, $gpus_each, $pick) = (undef, 0, 'all');
my $job = parse_job_line(\@ARGV, sub { defined $VALUES{ $_[0] } ? $VALUES{ $_[0] } : 1 }, \&take_option);

my @busy; # GPUs that others use
my @gpus = $gpus_each ? find_gpus() : ();
if ($gpus_each) {
    my $most = int(@gpus / $gpus_each);
    my $busy = join ',', @busy;
    my $in_use = @busy ? "; others use $busy (set CUDA_VISIBLE_DEVICES=$busy to share them)" : '';
    fail("--gpu $gpus_each: this machine has " . @gpus . " free GPUs$in_use") if $most < 1;
    $limit = $most if !defined $limit || $limit > $most;
}
$limit = count_cpus() unless defined $limit;

my @ids = ($job->{first} .. $job->{last});
my %state = map { $_ => $pick eq 'all' ? 'incomplete' : (log_state(job_log($job, $_)))[0] } @ids;
my @failed = $pick eq 'incomplete' ? grep { $state{$_} eq 'failed' } @ids : ();
my @waiting = grep { $state{$_} eq 'incomplete' || $pick eq 'failed' && $state{$_} eq 'failed' } @ids;
prepare_log(job_log($job, $_)) for @waiting;

run_jobs(@waiting);
report_failures($job, {}, @failed) if @failed;
exit(@failed ? 1 : 0);

sub take_option {
    my ($option, @values) = @_;
    if ($option eq '--help' || $option eq '-h') {
        print $USAGE;
        exit 0;
    } elsif ($option eq '--max-jobs-run' || $option eq '-tc') {
        my $number = positive_integer($option, $values[0]);
        $limit = $number if !defined $limit || $number < $limit;
    } elsif ($option eq '--gpu') {
        $gpus_each = $values[0] eq '0' ? 0 : positive_integer($option, $values[0]);
    } elsif ($option eq '--pick') {
        $pick = $values[0];
        fail("--pick needs all, failed or incomplete, not '$pick'") unless $pick =~ /^(?:all|failed|incomplete)$/;
    } elsif (!$IGNORED{$option}) {
        print STDERR "run.pl: ignoring the option $option @values\n";
    }
    return;
}

sub count_cpus {
    # nproc counts the CPUs that this process may use. But with OMP_NUM_THREADS=1 it would print 1.
    delete local @ENV{qw(OMP_NUM_THREADS OMP_THREAD_LIMIT)};
    my $count = qx(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN);
    return $count =~ /^(\d+)/ && $1 > 0 ? $1 : 1;
}

# The GPUs of CUDA_VISIBLE_DEVICES, else the free ones that the driver lists, by number or by the name of a MIG instance.
sub find_gpus {
    if (defined $ENV{CUDA_VISIBLE_DEVICES}) {
        my @given;
        for my $name (split /\s*,\s*/, $ENV{CUDA_VISIBLE_DEVICES} =~ s/^\s+|\s+$//gr) {
            last unless $name =~ /^(?:\d+|(?:GPU|MIG)-.+)$/; # CUDA stops at -1; Slurm writes NoDevFiles for no GPU
            push @given, $name;
        }
        return @given;
    }
    my (@found, %uuid);
    for (qx(nvidia-smi -L 2>/dev/null)) {
        if (/^GPU (\d+):.*\(UUID: (GPU-[^)]+)\)/) {
            push @found, $1;
            $uuid{$1} = $2;
        } elsif (/^\s+MIG .*\(UUID: +(MIG-[^)]+)\)/) {
            my $instance = $1;
            pop @found if @found && $found[-1] =~ /^\d/; # a GPU that is split into instances cannot be used as a whole
            push @found, $instance;
        }
    }
    my %used = used_gpus();
    @busy = grep { defined $uuid{$_} && $used{ $uuid{$_} } } @found;
    return grep { !(defined $uuid{$_} && $used{ $uuid{$_} }) } @found;
}

# The GPUs with processes, or with more than 1 GiB in use, since nvidia-smi does not list the processes of other containers.
sub used_gpus {
    my @computing = qx(nvidia-smi --query-compute-apps=gpu_uuid --format=csv,noheader 2>/dev/null);
    my %used = map { /(GPU-\S+)/ ? ($1 => 1) : () } @computing;
    for (qx(nvidia-smi --query-gpu=uuid,memory.used --format=csv,noheader,nounits 2>/dev/null)) {
        $used{$1} = 1 if /(GPU-[^\s,]+),\s*(\d+)/ && $2 > 1024;
    }
    return %used;
}

# Signals are blocked except during sigsuspend: otherwise one could be lost between the check of the jobs and the wait.
sub run_jobs {
    my @queue = @_;
    my (%running, $signal);
    my $outside = POSIX::SigSet->new;
    sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD), $outside);
    my @cancelling = cancelling_signals();
    local @SIG{@cancelling} = (sub { $signal = $_[0] }) x @cancelling;
    local $SIG{CHLD} = sub { };
    while (@queue || %running) {
        while (@queue && keys %running < $limit) {
            my $id = shift @queue;
            my @own = splice @gpus, 0, $gpus_each;
            $running{ start_job($id, \@own, $outside) } = { id => $id, gpus => \@own };
        }
        sigsuspend($outside);
        while ((my $pid = waitpid(-1, WNOHANG)) > 0) {
            my $ended = delete $running{$pid} or next;
            push @failed, $ended->{id} if $? != 0;
            push @gpus, @{ $ended->{gpus} };
        }
        cancel($signal, \%running) if $signal;
    }
    sigprocmask(SIG_SETMASK, $outside);
    return;
}

# Each job has its own process group, so that a signal reaches the job and all its children.
sub start_job {
    my ($id, $own_gpus, $signal_mask) = @_;
    my $script = job_script(job_log($job, $id), job_command($job, $id), '', 1);
    my $pid = fork;
    fail("cannot start job $id: $!") unless defined $pid;
    POSIX::setpgid($pid || $$, $pid || $$);
    return $pid if $pid;
    $ENV{CUDA_VISIBLE_DEVICES} = join ',', @$own_gpus if @$own_gpus;
    $SIG{CHLD} = 'DEFAULT';
    sigprocmask(SIG_SETMASK, $signal_mask);
    exec 'bash', '-c', $script or fail("cannot start bash: $!");
}

sub cancel {
    my ($signal, $running) = @_;
    my @groups = keys %$running;
    my $again;
    local @SIG{ cancelling_signals() } = (sub { $again = 1 }) x cancelling_signals();
    sigprocmask(SIG_UNBLOCK, POSIX::SigSet->new(SIGINT, SIGTERM, SIGHUP, SIGQUIT));
    print STDERR "run.pl: signal $signal: cancelling " . @groups . " running jobs (a second signal kills them)\n";
    # CONT, since a stopped process would not get TERM.
    for my $name (qw(TERM CONT)) { kill $name, map { -$_ } @groups }
    for (1 .. 200) { # 20 seconds: training finishes its batch and writes a checkpoint
        waitpid $_, WNOHANG for @groups;
        last if $again || !grep { kill 0, -$_ } @groups;
        select undef, undef, undef, 0.1;
    }
    kill 'KILL', map { -$_ } @groups;
    mark_cancelled($signal, map { job_log($job, $_->{id}) } values %$running);
    exit 2;
}
