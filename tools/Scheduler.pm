package Scheduler;

# Code that queue.pl and slurm.pl share. It reads the conf that translates options for the scheduler, writes the script of an
# array of tasks, submits it, and waits for its end.
#
# Each task writes its exit code to a file of its own, the sync file, which is cheap to check. The scheduler serves all users,
# so it is asked only now and then whether the remaining tasks are alive.

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
# Seconds to wait, by the kind of a task's state (see `states` below), before the task counts as lost. File servers may show a
# sync file late, and a busy host may report late. unexplained: seconds to wait for the scheduler's reason.
my %PATIENCE = (dead => 0, ended => 6, leaving => 6, unheard => 120, unexplained => 30);
my $SILENCE = 3600;      # time-out in seconds for a scheduler that does not answer
my @PAUSE = (0.05, 0.5); # seconds between two checks for sync files: the first pause, the longest pause
my @ASK = (2, 10);       # the same for questions to the scheduler
# Time-out of a submission in seconds.
my $SUBMISSION = $ENV{WESPEAKER_LITE_SUBMIT_SECONDS} // 120;
my $HURRY = 10;          # time-out in seconds of any command after a signal
my $TIMED_OUT = 142;     # the exit code of a command that was stopped by its time-out
# Seconds that a cancelled job has to end: it may write a checkpoint.
my $ENDING = $ENV{WESPEAKER_LITE_END_SECONDS} // 120;
# Pauses in seconds before a submission is repeated after a temporary failure.
my @TRY_AGAIN = split ' ', $ENV{WESPEAKER_LITE_SUBMIT_PAUSES} // '2 5 15 30';
my $TEMPORARY = join '|', 'no answer', 'timed out', 'timeout', 'temporar', 'try again', 'unable to contact', 'connection (?:refused|reset)',
    "can't connect", 'got no response', 'queue size limit';
my $VANISHED = 'the scheduler does not know it any more';
my $signal; # the name of the signal that was received, if any

# Runs the job line in @ARGV and exits. $cluster is a hash:
#   conf        the name of the conf file
#   usage       the text of --help
#   task_id     the environment variable with the number of a task
#   flags       a hash: the number of values of options with one dash, where it is not 1
#   submission  ->($job, $script, $limit) returns the arguments after those of the conf; the command prints the array's number
#   number      the pattern of the line with that number, which is the first group
#   find        ->($name) returns the numbers of our user's unfinished jobs of that name, the newest first. If the answer was
#               not understood, it returns undef and the text of the answer
#   look        the command that shows these jobs to a user; the name follows
#   states      ->($number, $name) returns a hash of [kind, text] by task of our user's array of that number and name, or
#               undef without an answer. Kinds: alive; unheard (may be alive, but its host does not report to the scheduler);
#               ended (its sync file may still appear; the same holds for a task that is not listed); leaving (the same, but
#               the task is still on its host); dead
#   cancel      ->($number)
#   why         ->($number, $name) returns a hash by ended task: the reason why the scheduler ended it, '' if it did not
#   pass_on     signals that the scheduler may send to the script alone, and that the script forwards to the task
sub run_on_cluster {
    my ($cluster) = @_;
    my ($job, $asked) = read_job_line($cluster);
    my @command = scheduler_command($asked, read_conf($asked->{config}));
    my @ids = ($job->{first} .. $job->{last});
    local @SIG{ cancelling_signals() } = (sub { $signal = $_[0] }) x cancelling_signals();
    local $SIG{CHLD} = 'DEFAULT'; # if it were ignored, exit codes would be lost

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

# Cancels the job that a killed runner has left, and waits for its end: it writes the same log and files as this job.
sub end_older {
    my ($array) = @_;
    my ($numbers, @pauses) = (undef, @TRY_AGAIN);
    while (1) {
        ($numbers, my $said) = find($array);
        last if $numbers || !try_again("no answer on older jobs of the name $array->{name}", $said, \@pauses);
    }
    # The scheduler may list a finished job for a moment.
    return if !$numbers || !@$numbers || is_gone($array, 2);
    if (!$signal) {
        print STDERR "$PROGRAM: job @$numbers ($array->{name}) is left from an earlier run; cancelling it\n";
        $array->{cluster}{cancel}->($_) for @$numbers;
        return if is_gone($array, $ENDING);
    }
    exit 2 if $signal;
    fail("it does not end, and this job would write the same files. Submit again when it is gone: " . look($array));
}

sub find {
    my ($array) = @_;
    return $array->{cluster}{find}->($array->{name});
}

# The command that shows the jobs of this name to a user.
sub look {
    my ($array) = @_;
    return "$array->{cluster}{look} $array->{name}";
}

# Waits until no job of this name is left. A signal ends the wait.
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

# After a temporary failure, prints a message, waits, and returns true.
sub try_again {
    my ($what, $said, $pauses) = @_;
    return 0 if $said !~ /$TEMPORARY/i || !@$pauses || $signal;
    my $pause = shift @$pauses;
    print STDERR "$PROGRAM: $what ($said); trying again in $pause s\n";
    # In short steps: a signal that comes just before a pause would not end it.
    for (my $until = now() + $pause; !$signal && now() < $until;) { select undef, undef, undef, 0.2 }
    return !$signal;
}

# Submits the array, repeatedly after temporary failures. Reads the array's number from the last line of standard output,
# since a site's wrapper may print other lines with digits before it or to standard error. Without a number, it finds the job
# by its name: end_older has removed all other jobs of that name.
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
        return $array->{number} = $found->[0] if $found && @$found; # the scheduler accepted the job despite the error
        my $said = join "\n", grep { $_ ne '' } $answer, $errors;
        # A submission that was stopped may still be accepted: a second one could run the job twice.
        my $was_stopped = $code > 128;
        next if !$was_stopped && try_again("$command[0] did not take the job", $said, \@pauses);
        last if $signal;
        remove_sync_files($array->{sync});
        $said .= '; it may still run, see: ' . look($array) if $was_stopped;
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

# The conf in conf/ of the current folder, else that of the repository.
sub find_conf {
    my ($name) = @_;
    return -e "conf/$name" ? "conf/$name" : dirname(__FILE__) . "/../conf/$name";
}

# Reads a conf: lines `command WORDS`, `default NAME=VALUE` and `option NAME=VALUE WORDS`. VALUE may be *, and $0 in WORDS
# stands for the given value.
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
    fail("$path: no line with the command") unless @{ $conf{command} };
    return \%conf;
}

# The command that submits, with the arguments for the options. No shell parses it, so a value never becomes two words.
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

# Writes the script, and makes an empty folder for the sync files. Both are in q/ beside the logs.
sub prepare_queue_files {
    my ($cluster, $job, $threads) = @_;
    my $log = $job->{log};
    $log =~ s/\.?\Q$job->{name}\E//g if defined $job->{name};
    $log = ".$log" if $log =~ m{^/} && $job->{log} !~ m{^/}; # the log was JOB/x.log
    my $base = basename($log) =~ s/\.log$//r;
    my $queue = dirname($log) . '/q';
    make_path($queue, { error => \my $errors });
    fail("cannot make the folder $queue: " . join ', ', map { values %$_ } @$errors) if @$errors;
    # With the time, since another machine may use the same process number. If two runners still agree, one mkdir fails.
    my $sync = sprintf '%s/%s.%x-%x', $queue, $base, time, $$;
    mkdir $sync or fail("cannot make the folder $sync: $!");
    my $script = "$queue/$base.sh";
    open my $file, '>', "$sync/script" or fail("cannot write $sync/script: $!");
    print $file array_script($cluster, $job, $sync, $threads);
    close $file or fail("cannot write $sync/script: $!");
    rename "$sync/script", $script or fail("cannot write $script: $!");
    return ($script, $sync);
}

# The script of all tasks. It inserts the number of a task when it runs; digits need no quoting.
# It exits with 1 for any failure: Grid Engine restarts a task that exits with 99, and holds one that exits with 100.
# Stop signals are meant for the command. The shells survive them to write its exit code, and start no further command.
# The script uses `wait`, since a trap runs at once during `wait`, but not during a foreground command.
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

# Waits until all tasks have ended, or for a signal. Returns a hash by task: its exit code, or why it has none.
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
    # Tasks that the scheduler holds would stay in the queue forever, or start again when their host is back.
    cancel_ours($array) if $wait{lost} && !%{ $wait{left} };
    return %{ $wait{how} };
}

# Seconds of a monotonic clock.
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
    # Ask a slow scheduler less often.
    my $longest = 20 * (now() - $before);
    $longest = $ASK[1] if $longest < $ASK[1];
    $wait->{ask_after} = $wait->{ask_after} * 1.5 < $longest ? $wait->{ask_after} * 1.5 : $longest;
    $wait->{heard_at} = now() if $states;
    $states ? judge($wait, $states) : no_answer($wait);
    $wait->{ask_at} = now() + (%{ $wait->{ended} } ? $ASK[0] : $wait->{ask_after});
    return;
}

# The states of the array's tasks. If there are none, the number that the submission printed may be wrong: search by name.
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

# Settles the tasks that are lost. Creating a file in the folder makes NFS read its list of files again.
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

# Adds the scheduler's reason, such as a limit of time or memory, to tasks that a signal ended or that have vanished.
sub explain {
    my ($array, $how) = @_;
    my @unclear = grep { $how->{$_} eq "was lost ($VANISHED)" || $how->{$_} =~ /^\d+$/ && $how->{$_} > 128 } keys %$how;
    my ($why, $until) = ({}, now() + $PATIENCE{unexplained}); # the scheduler may still clean up after a killed task
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

# Cancels the array and waits for its end, so that the user can run the same command again at once. The job of a submission
# that the signal has stopped may appear late.
sub cancel {
    my ($array) = @_;
    my $numbers = cancel_ours($array);
    if ($numbers && !@$numbers && !defined $array->{number}) {
        select undef, undef, undef, 1;
        $numbers = cancel_ours($array);
    }
    if (!$numbers || !@$numbers) {
        my $what = $numbers ? 'found no such job' : 'the scheduler does not say whose job it is';
        print STDERR "$PROGRAM: signal $signal: $what, cancelled nothing; ", may_run($array), "\n";
        return;
    }
    print STDERR "$PROGRAM: signal $signal: cancelling the array @$numbers\n";
    # A job may need half a minute to end, since training writes a checkpoint.
    print STDERR "$PROGRAM: some tasks of the array @$numbers still run\n" unless is_gone($array, 40);
    return;
}

# Cancels our user's jobs of our name, whatever number the submission printed. Returns their numbers, undef without an answer.
sub cancel_ours {
    my ($array) = @_;
    my ($numbers) = find($array);
    $array->{cluster}{cancel}->($_) for @{ $numbers || [] };
    return $numbers;
}

sub may_run {
    my ($array) = @_;
    my $job = defined $array->{number} ? "array $array->{number}" : 'the job';
    return "$job may still run, see: " . look($array);
}

# Runs a command with a time-out in seconds. After a signal, it has one more second. Returns its exit code ($TIMED_OUT after a
# time-out), its standard output and its standard error. The command has its own process group, which Ctrl-C does not reach:
# otherwise a submission could end after the scheduler has accepted the job, but before it has printed the number.
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
        # A process that the command has started may still hold the pipe.
        last if defined $code && !$is_open;
        $until = now() + 1 if $signal && !$before && $until > now() + 1;
        next if now() < $until;
        kill 'KILL', -$pid; # the whole group: a site's wrapper may have started the program that hangs
        waitpid $pid, 0;
        $code = $TIMED_OUT;
        last;
    }
    seek $errors, 0, 0;
    my $errors_text = do { local $/; <$errors> };
    $errors_text = "no answer for $seconds s " . ($errors_text // '') if $code == $TIMED_OUT;
    for ($said, $errors_text) {
        $_ = '' unless defined;
        s/\s+\z//;
    }
    return ($code, $said, $errors_text);
}

# Appends to a text what can be read within the given seconds. Returns false if there is nothing, or at the end.
sub read_some {
    my ($file, $text, $seconds) = @_;
    my $readable = '';
    vec($readable, fileno $file, 1) = 1;
    if (select($readable, undef, undef, $seconds) > 0) {
        return 1 if sysread $file, $$text, 4096, length $$text;
        select undef, undef, undef, 0.01; # at the end of the output, the program exits soon
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
