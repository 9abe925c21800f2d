package Scheduler;

# What queue.pl and slurm.pl share: the conf that turns options into the scheduler's own, the script of an array of
# tasks, and the wait for it.
#
# A task tells its exit code by a file of its own (the sync file), which is quick to look for; the scheduler, whose time
# all users share, is asked now and then whether the tasks that are still missed are alive.

use strict;
use warnings;

use Cwd qw(getcwd);
use Exporter 'import';
use File::Basename qw(basename dirname);
use File::Path qw(make_path);
use File::Temp qw(tempfile);
use lib dirname(__FILE__);
use JobRunner qw(parse_job_line positive_integer job_log job_name job_command job_script quote prepare_log
    report_failures mark_cancelled cancelling_signals fail);
use POSIX qw(:sys_wait_h);
use Text::ParseWords qw(shellwords);

our @EXPORT_OK = qw(run_on_cluster capture);

my $PROGRAM = basename($0);
# Seconds for the sync file of a task to come into sight after its end (file servers may be late), and for the scheduler to
# hear of a task's host again (a busy host may be late), or to tell why it ended one.
my %PATIENCE = (dead => 0, ended => 6, leaving => 6, unheard => 120, unexplained => 30);
my $SILENCE = 3600;      # seconds after which a scheduler that does not answer is given up
my @PAUSE = (0.05, 0.5); # seconds between two looks for sync files, at first and at most
my @ASK = (2, 10);       # the same for questions to the scheduler
# Seconds after which a submission that does not end is given up.
my $SUBMISSION = $ENV{WESPEAKER_LITE_SUBMIT_SECONDS} // 120;
my $HURRY = 10;          # the same for any question once a signal has come
my $LATE = 142;          # the exit code of a program that took longer than it may
# Seconds for a job to end that was cancelled: it may write a checkpoint.
my $ENDING = $ENV{WESPEAKER_LITE_END_SECONDS} // 120;
# Pauses before a submission is tried again that failed for a cause which passes.
my @TRY_AGAIN = split ' ', $ENV{WESPEAKER_LITE_SUBMIT_PAUSES} // '2 5 15 30';
my $PASSES = join '|', 'no answer', 'timed out', 'timeout', 'temporar', 'try again', 'unable to contact', 'connection (?:refused|reset)',
    "can't connect", 'got no response', 'queue size limit';
my $VANISHED = 'the scheduler does not know it any more';
my $signal; # the one that came, if any

# Runs the job line in @ARGV and ends the program. $cluster is a hash:
#   conf        the name of the conf file
#   usage       what --help prints
#   task_id     the variable in which a task finds its number
#   flags       a hash: how many values an option with one dash has, where it is not one
#   submission  ->($job, $script, $limit), the words after those of the conf; they print the array's number
#   number      what a line that tells that number is like; the number is its first group
#   find        ->($name), the numbers of our user's jobs of that name that have not ended, the newest first; and the
#               answer in words, where it was not understood (the numbers are undef then)
#   look        what a user asks to see them; the name follows
#   states      ->($number, $name), a hash of [kind, words] by task of our user's array of that number and name, undef
#               without an answer. Kinds: alive; unheard (it may be
#               alive, on a host that the scheduler does not hear of); ended (its sync file may still come into sight,
#               as may that of a task that is not listed); leaving (the same, but it has not yet left its machine); dead.
#   cancel      ->($number)
#   why         ->($number, $name), a hash of words by ended task: why the scheduler ended it, '' if it did not
#   pass_on     signals that may come to the script alone, and are meant for the task
sub run_on_cluster {
    my ($cluster) = @_;
    my ($job, $asked) = read_job_line($cluster);
    my @command = scheduler_command($asked, read_conf($asked->{config}));
    my @ids = ($job->{first} .. $job->{last});
    local @SIG{ cancelling_signals() } = (sub { $signal = $_[0] }) x cancelling_signals();
    local $SIG{CHLD} = 'DEFAULT'; # or exit codes would be lost

    my $array = { cluster => $cluster, name => job_name($job), number => undef };
    end_older($array);
    prepare_log(job_log($job, $_)) for @ids;
    (my $script, $array->{sync}) = prepare_queue_files($cluster, $job, $asked->{value}{num_threads} || 1);
    push @command, @{ $asked->{passed} }, $cluster->{submission}->($job, $script, $asked->{limit});
    submit($array, @command);
    my %how = wait_for_tasks($array, @ids);
    if ($signal) {
        cancel($array);
        mark_cancelled($signal, map { job_log($job, $_) } grep { !defined $how{$_} } @ids);
    }
    remove_sync_files($array->{sync});
    exit 2 if $signal;
    explain($array, \%how);
    my @failed = grep { $how{$_} ne '0' } @ids;
    report_failures($job, { map { $_ => $how{$_} } grep { $how{$_} !~ /^\d+$/ } @failed }, @failed) if @failed;
    exit(@failed ? 1 : 0);
}

# A runner that was killed leaves its job, which writes the log and the files of this one: it must end before.
sub end_older {
    my ($array) = @_;
    my ($numbers, @pauses) = (undef, @TRY_AGAIN);
    while (1) {
        ($numbers, my $said) = find($array);
        last if $numbers || !try_again("no answer on older jobs of the name $array->{name}", $said, \@pauses);
    }
    # One that has ended may be seen for a moment.
    return if !$numbers || !@$numbers || is_gone($array, 2);
    if (!$signal) {
        print STDERR "$PROGRAM: job @$numbers ($array->{name}) is left from an earlier run; cancelling it\n";
        $array->{cluster}{cancel}->($_) for @$numbers;
        return if is_gone($array, $ENDING);
    }
    exit 2 if $signal;
    fail("it does not end; this job would write the same files. Submit again when it is gone: " . look($array));
}

sub find {
    my ($array) = @_;
    return $array->{cluster}{find}->($array->{name});
}

# How a user sees the jobs of this name.
sub look {
    my ($array) = @_;
    return "$array->{cluster}{look} $array->{name}";
}

# Waits until no job of this name is left; a signal that comes meanwhile ends it.
sub is_gone {
    my ($array, $seconds) = @_;
    my ($until, $before) = (now() + $seconds, $signal);
    while (1) {
        my ($numbers) = find($array);
        return 1 if $numbers && !@$numbers;
        return 0 if now() >= $until || !$before && $signal;
        select undef, undef, undef, 0.5;
    }
}

# Where the cause of a failure passes, says so, pauses, and is true.
sub try_again {
    my ($what, $said, $pauses) = @_;
    return 0 if $said !~ /$PASSES/i || !@$pauses || $signal;
    my $pause = shift @$pauses;
    print STDERR "$PROGRAM: $what ($said); trying again in $pause s\n";
    select undef, undef, undef, $pause; # a signal ends it
    return !$signal;
}

# Submits, again where the cause passes. The array's number is read from the last line of standard output: what a site's
# wrapper says before it, or on standard error, may begin with digits too. If in doubt, the job is looked for by its name:
# none of that name was left before.
sub submit {
    my ($array, @command) = @_;
    my @pauses = @TRY_AGAIN;
    while (!$signal) {
        my ($code, $answer, $errors) = capture($SUBMISSION, @command);
        if ($code == 0) {
            ($array->{number}) = ($answer =~ /([^\n]*)\z/)[0] =~ $array->{cluster}{number};
            print STDERR "$PROGRAM: $command[0] does not end with the job's number, but: $answer; it is looked for by its name: ",
                look($array), "\n" unless defined $array->{number};
            return;
        }
        last if $signal;
        my ($found) = find($array);
        return $array->{number} = $found->[0] if $found && @$found; # it was taken all the same
        my $said = join "\n", grep { $_ ne '' } $answer, $errors;
        # One that was cut off may still be taken: to try again could run the job twice.
        my $is_cut = $code > 128;
        next if !$is_cut && try_again("$command[0] did not take the job", $said, \@pauses);
        last if $signal;
        remove_sync_files($array->{sync});
        $said .= '; it may run all the same, see: ' . look($array) if $is_cut;
        fail("$command[0] did not take the job (code $code): $said");
    }
    return;
}

sub read_job_line {
    my ($cluster) = @_;
    my %asked = (value => {}, passed => [], limit => undef, config => find_conf($cluster->{conf}));
    my $take = sub {
        my ($option, @values) = @_;
        if ($option eq '--help' || $option eq '-h') {
            print $cluster->{usage};
            exit 0;
        } elsif ($option eq '--config') {
            $asked{config} = $values[0];
        } elsif ($option =~ /^--?max[-_]jobs[-_]run$|^-tc$/) {
            my $limit = positive_integer($option, $values[0]);
            $asked{limit} = $limit if !defined $asked{limit} || $limit < $asked{limit};
        } elsif ($option =~ /^--(\w[\w-]*)$/) {
            $asked{value}{ $1 =~ tr/-/_/r } = $values[0];
        } elsif ($option =~ /^--/) {
            fail("write an option and its value as two words, not '$option'");
        } else {
            push @{ $asked{passed} }, $option, @values;
        }
    };
    my %flags = ('--help' => 0, '-h' => 0, %{ $cluster->{flags} });
    my $job = parse_job_line(\@ARGV, sub { defined $flags{ $_[0] } ? $flags{ $_[0] } : 1 }, $take);
    positive_integer('--num-threads', $asked{value}{num_threads}) if defined $asked{value}{num_threads};
    return ($job, \%asked);
}

# conf/ where the user is, else beside the folder of this program.
sub find_conf {
    my ($name) = @_;
    return -e "conf/$name" ? "conf/$name" : dirname(__FILE__) . "/../conf/$name";
}

# Lines `command WORDS`, `default NAME=VALUE` and `option NAME=VALUE WORDS`, where VALUE may be * and $0 is the value.
sub read_conf {
    my ($path) = @_;
    my %conf = (path => $path, command => [], default => {}, option => {});
    open my $file, '<', $path or fail("cannot read $path: $!");
    while (my $line = <$file>) {
        $line =~ s/(?:^|\s)#.*//s;
        next if $line =~ /^\s*$/;
        my ($what, $rest) = $line =~ /^\s*(\S+)\s*(.*?)\s*$/s;
        my @words = shellwords($rest);
        fail("$path:$.: a quote is not closed") if $rest ne '' && !@words;
        if ($what eq 'command' && @words) {
            $conf{command} = \@words;
        } elsif ($what eq 'default' && @words == 1 && $words[0] =~ /^(\w+)=(.*)$/) {
            $conf{default}{$1} = $2;
        } elsif ($what eq 'option' && @words && $words[0] =~ /^\w+=./) {
            my $setting = shift @words;
            $conf{option}{$setting} = \@words;
        } else {
            fail("$path:$.: expected 'command WORDS', 'default NAME=VALUE' or 'option NAME=VALUE WORDS'");
        }
    }
    close $file;
    fail("$path: no line says the command") unless @{ $conf{command} };
    return \%conf;
}

# The words that submit, with those that the options ask for. No shell reads them: a value is one word or a part of one.
sub scheduler_command {
    my ($asked, $conf) = @_;
    my %value = (%{ $conf->{default} }, %{ $asked->{value} });
    my @words = @{ $conf->{command} };
    for my $name (sort keys %value) {
        my $option = $conf->{option}{"$name=$value{$name}"} || $conf->{option}{"$name=*"};
        fail("$conf->{path} has no option $name=$value{$name}, nor $name=*") unless $option;
        push @words, map { s/\$0/$value{$name}/gr } @$option;
    }
    return @words;
}

# Writes the script and makes the empty folder of the sync files, both in q/ beside the logs.
sub prepare_queue_files {
    my ($cluster, $job, $threads) = @_;
    my $log = $job->{log};
    $log =~ s/\.?\Q$job->{name}\E//g if defined $job->{name};
    $log = ".$log" if $log =~ m{^/} && $job->{log} !~ m{^/}; # it was JOB/x.log
    my $base = basename($log) =~ s/\.log$//r;
    my $queue = dirname($log) . '/q';
    make_path($queue, { error => \my $errors });
    fail("cannot make the folder $queue: " . join ', ', map { values %$_ } @$errors) if @$errors;
    # The time, since a process number may be taken on another machine too; mkdir tells who came first.
    my $sync = sprintf '%s/%s.%x-%x', $queue, $base, time, $$;
    mkdir $sync or fail("cannot make the folder $sync: $!");
    my $script = "$queue/$base.sh";
    open my $file, '>', "$sync/script" or fail("cannot write $sync/script: $!");
    print $file array_script($cluster, $job, $sync, $threads);
    close $file or fail("cannot write $sync/script: $!");
    rename "$sync/script", $script or fail("cannot write $script: $!");
    return ($script, $sync);
}

# The number of a task is put in when it runs. It is digits only, hence safe at any depth of quoting.
# The script ends with 1 for whatever code: Grid Engine starts a task again that ends with 99, and holds one with 100.
# Signals that ask a job to stop are for the command: the shells outlive them to tell how it ended, and start nothing
# after it. `wait`, unlike a command in the foreground, lets a trap run at once.
sub array_script {
    my ($cluster, $job, $sync, $threads) = @_;
    my ($mark, $again) = ('@TASK@', 0);
    $mark = '@TASK' . ++$again . '@' while grep { index($_, $mark) >= 0 } $job->{log}, @{ $job->{words} };
    my $setup = "trap 'exit 143' TERM USR1 USR2\n[ ! -f ./path.sh ] || . ./path.sh || exit 1\n";
    my $run = job_script(job_log($job, $mark), job_command($job, $mark), $setup, $threads);
    my $task = quote("trap : TERM USR1 USR2\n$run");
    my ($folder, $sync_folder) = map { quote($_) } getcwd(), $sync;
    my $traps = join '', map { "trap 'trap : $_; kill -$_ -\$\$' $_\n" } @{ $cluster->{pass_on} };
    return <<"END";
#!/bin/bash
# Written by $PROGRAM.
cd $folder || exit 1
task=$task
trap : TERM USR1 USR2
${traps}bash -c "\${task//$mark/\$$cluster->{task_id}}" &
while kill -0 \$! 2>/dev/null; do wait \$!; done
wait \$!
code=\$?
sync=$sync_folder/\$$cluster->{task_id}
echo "\$code" >"\$sync.part" && mv "\$sync.part" "\$sync"
[ "\$code" -eq 0 ]
END
}

# Waits until every task has ended, or a signal came. Returns by task its exit code, or words that tell why it has none.
sub wait_for_tasks {
    my ($array, @ids) = @_;
    my %wait = (array => $array, left => { map { $_ => 1 } @ids }, how => {}, ended => {}, ask_after => $ASK[0]);
    $wait{ask_at} = now() + $wait{ask_after};
    $wait{heard_at} = now();
    my $pause = $PAUSE[0];
    while (!$signal) {
        my $news = read_sync_files(\%wait);
        ask_scheduler(\%wait) if !$news && now() >= $wait{ask_at};
        last unless %{ $wait{left} };
        $pause = $news ? $PAUSE[0] : $pause * 1.3 < $PAUSE[1] ? $pause * 1.3 : $PAUSE[1];
        select undef, undef, undef, $pause;
    }
    # What the scheduler holds in vain would stay there for ever, or start again when its host is back.
    cancel_ours($array) if $wait{lost} && !%{ $wait{left} };
    return %{ $wait{how} };
}

# Seconds of a clock that nobody sets.
sub now {
    return (POSIX::times())[0] / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

sub read_sync_files {
    my ($wait) = @_;
    my $folder;
    if (!opendir $folder, $wait->{array}{sync}) {
        my $reason = "was lost ($wait->{array}{sync}: $!)";
        settle($wait, $_, $reason) for keys %{ $wait->{left} };
        return $wait->{lost} = 1;
    }
    my @found = grep { $wait->{left}{$_} } readdir $folder;
    closedir $folder;
    my $news = 0;
    for my $id (@found) {
        open my $file, '<', "$wait->{array}{sync}/$id" or next;
        my $code = <$file>;
        close $file;
        next unless defined $code && $code =~ /^(\d+)\n/;
        settle($wait, $id, $1);
        $news++;
    }
    return $news;
}

sub settle {
    my ($wait, $id, $how) = @_;
    $wait->{how}{$id} = $how;
    delete $wait->{left}{$id};
    return;
}

sub ask_scheduler {
    my ($wait) = @_;
    my $before = now();
    my $states = states($wait->{array});
    # A scheduler that is slow to answer is asked less often.
    my $longest = 20 * (now() - $before);
    $longest = $ASK[1] if $longest < $ASK[1];
    $wait->{ask_after} = $wait->{ask_after} * 1.5 < $longest ? $wait->{ask_after} * 1.5 : $longest;
    $wait->{heard_at} = now() if $states;
    $states ? judge($wait, $states) : no_answer($wait);
    $wait->{ask_at} = now() + (%{ $wait->{ended} } ? $ASK[0] : $wait->{ask_after});
    return;
}

# The states of the array's tasks. Where there are none, its number may not be what the submission said.
sub states {
    my ($array) = @_;
    my ($number, $ask) = ($array->{number}, $array->{cluster}{states});
    my $states = defined $number ? $ask->($number, $array->{name}) : {};
    return $states if !$states || %$states;
    my ($numbers) = find($array) or return;
    return unless $numbers;
    return $states if !@$numbers || defined $number && $numbers->[0] eq $number;
    $array->{number} = $numbers->[0];
    return $ask->($array->{number}, $array->{name});
}

# Settles the tasks that cannot end any more. To make a file in a folder has its list read again by NFS.
sub judge {
    my ($wait, $states) = @_;
    my %missing = map { $_ => $states->{$_} || ['ended', $VANISHED] } keys %{ $wait->{left} };
    delete @missing{ grep { $missing{$_}[0] eq 'alive' } keys %missing };
    $wait->{ended} = { map { $_ => defined $wait->{ended}{$_} ? $wait->{ended}{$_} : now() } keys %missing };
    return unless %missing;
    if (open my $file, '>', "$wait->{array}{sync}/look") { close $file }
    read_sync_files($wait);
    for my $id (grep { $wait->{left}{$_} } keys %missing) {
        my ($kind, $words) = @{ $missing{$id} };
        next if now() - $wait->{ended}{$id} < $PATIENCE{$kind};
        settle($wait, $id, "was lost ($words)");
        $wait->{lost} = 1;
    }
    return;
}

sub no_answer {
    my ($wait) = @_;
    my $silent = now() - $wait->{heard_at};
    print STDERR "$PROGRAM: the scheduler does not answer; ", may_run($wait->{array}), "\n" unless $wait->{told}++;
    return if $silent < $SILENCE;
    settle($wait, $_, "was lost (the scheduler does not answer for $SILENCE s)") for keys %{ $wait->{left} };
    return;
}

# Tasks that a signal ended, or that are just gone: a limit of time or memory may be why.
sub explain {
    my ($array, $how) = @_;
    my @unclear = grep { $how->{$_} eq "was lost ($VANISHED)" || $how->{$_} =~ /^\d+$/ && $how->{$_} > 128 } keys %$how;
    my ($why, $until) = ({}, now() + $PATIENCE{unexplained}); # a scheduler still tidies up behind a killed task
    while (grep { !defined $why->{$_} } @unclear) {
        $why = defined $array->{number} ? $array->{cluster}{why}->($array->{number}, $array->{name}) : undef;
        last if !$why || now() > $until;
        select undef, undef, undef, 1 if grep { !defined $why->{$_} } @unclear;
    }
    for my $id (grep { $why->{$_} } @unclear) {
        $how->{$id} = ($how->{$id} =~ /^\d+$/ ? 'failed' : 'was lost') . " ($why->{$id})";
    }
    return;
}

# Leaves when nothing runs any more, so that the same command may be given again at once. A submission that the signal has
# cut off may be seen late.
sub cancel {
    my ($array) = @_;
    my $numbers = cancel_ours($array);
    if ($numbers && !@$numbers && !defined $array->{number}) {
        select undef, undef, undef, 1;
        $numbers = cancel_ours($array);
    }
    if (!$numbers || !@$numbers) {
        my $what = $numbers ? 'no such job is to be seen' : 'the scheduler does not say whose the job is';
        print STDERR "$PROGRAM: signal $signal: $what, and none is cancelled; ", may_run($array), "\n";
        return;
    }
    print STDERR "$PROGRAM: signal $signal: cancelling the array @$numbers\n";
    # A job may take half a minute to end, as training does to write a checkpoint.
    print STDERR "$PROGRAM: some tasks of the array @$numbers still run\n" unless is_gone($array, 40);
    return;
}

# Cancels the jobs of our user and our name, whatever number a submission told. Returns their numbers, undef without an answer.
sub cancel_ours {
    my ($array) = @_;
    my ($numbers) = find($array);
    $array->{cluster}{cancel}->($_) for @{ $numbers || [] };
    return $numbers;
}

sub may_run {
    my ($array) = @_;
    my $job = defined $array->{number} ? "array $array->{number}" : 'the job';
    return "$job may run on, see: " . look($array);
}

# Runs a program, for no more than so many seconds, and once a signal comes for one more. Returns its exit code ($LATE: it
# took longer), its standard output and its standard error. Ctrl-C goes to the whole process group: outside of it, a
# submission is not cut off when the job is taken and its number not yet told.
sub capture {
    my ($seconds, @words) = @_;
    my $before = $signal;
    $seconds = $HURRY if $before && $seconds > $HURRY;
    my $errors = tempfile();
    my $pid = open my $output, '-|';
    fail("cannot start $words[0]: $!") unless defined $pid;
    if (!$pid) {
        POSIX::setpgid(0, 0);
        open STDIN, '<', '/dev/null' or POSIX::_exit(126);
        open STDERR, '>&', $errors or POSIX::_exit(126);
        no warnings 'exec';
        exec { $words[0] } @words or print STDERR "cannot start $words[0]: $!\n";
        POSIX::_exit(127);
    }
    my ($said, $code, $until) = ('', undef, now() + $seconds);
    while (1) {
        my $is_open = read_some($output, \$said, defined $code ? 0 : 0.1);
        $code = $? & 127 ? 128 + ($? & 127) : $? >> 8 if !defined $code && waitpid($pid, WNOHANG) == $pid;
        # It may have left behind what holds the pipe.
        last if defined $code && !$is_open;
        $until = now() + 1 if $signal && !$before && $until > now() + 1;
        next if now() < $until;
        kill 'KILL', -$pid; # the whole group: a site's wrapper may have started the program that hangs
        waitpid $pid, 0;
        $code = $LATE;
        last;
    }
    seek $errors, 0, 0;
    my $complaint = do { local $/; <$errors> };
    $complaint = "no answer for $seconds s " . ($complaint // '') if $code == $LATE;
    for ($said, $complaint) {
        $_ = '' unless defined;
        s/\s+\z//;
    }
    return ($code, $said, $complaint);
}

# Adds to a text what can be read within so many seconds. False where there is nothing, or the end.
sub read_some {
    my ($file, $text, $seconds) = @_;
    my $readable = '';
    vec($readable, fileno $file, 1) = 1;
    if (select($readable, undef, undef, $seconds) > 0) {
        return 1 if sysread $file, $$text, 4096, length $$text;
        select undef, undef, undef, 0.01; # the end: the program ends soon, too
    }
    return 0;
}

sub remove_sync_files {
    my ($sync) = @_;
    unlink glob quotemeta($sync) . '/*';
    rmdir $sync;
    return;
}

1;
