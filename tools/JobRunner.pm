package JobRunner;

# Code that all job runners share: it parses the job line, writes the bash script of a job, and reads its log.
# It uses only modules of Debian's perl-base.

use strict;
use warnings;

use Cwd qw(getcwd);
use Exporter 'import';
use File::Basename qw(basename dirname);
use File::Path qw(make_path);

our @EXPORT_OK = qw(parse_job_line positive_integer job_log job_name job_command job_script quote log_state prepare_log
    report_failures mark_cancelled cancelling_signals fail);

my $PROGRAM = basename($0);

# Prints one line and exits with 1.
sub fail {
    my ($message) = @_;
    print STDERR "$PROGRAM: $message\n";
    exit 1;
}

sub positive_integer {
    my ($option, $text) = @_;
    fail("$option needs a whole number above 0, not '$text'") unless $text =~ /^[1-9]\d{0,8}\z/;
    return $text + 0;
}

# Parses `[options] [JOB=1:N] [options] LOG COMMAND [ARGUMENT...]`.
# Calls $on_option->($option, @values) for each option. $count_values->($option) returns its number of values.
# Returns a hash with name (undef without a range), first, last, log, words.
sub parse_job_line {
    my ($words, $count_values, $on_option) = @_;
    my %job = (name => undef, first => 1, last => 1);
    while (@$words) {
        if ($words->[0] =~ /^-/) {
            my $option = shift @$words;
            my @values = splice @$words, 0, $count_values->($option);
            fail("$option needs a value") if grep { !defined || /^--/ } @values[0 .. $count_values->($option) - 1];
            $on_option->($option, @values);
        } elsif (!defined $job{name} && $words->[0] =~ m{^([A-Za-z_]\w*)=([^/]*)$}) {
            @job{qw(name first last)} = ($1, parse_range($words->[0], $2));
            shift @$words;
        } else {
            last;
        }
    }
    fail("expected a log file and a command; run $PROGRAM --help for the usage") if @$words < 2;
    ($job{log}, @{ $job{words} }) = @$words;
    if ($job{last} > $job{first} && index($job{log}, $job{name}) < 0) {
        fail("$job{name} must be in the path of the log, or all jobs write the same log $job{log}");
    }
    return \%job;
}

sub parse_range {
    my ($word, $range) = @_;
    $range =~ /^(\d{1,9})(?::(\d{1,9}))?\z/ or fail("expected a range like JOB=1:4, not '$word'");
    my ($first, $last) = ($1, defined $2 ? $2 : $1);
    fail("the range '$word' starts below 1") if $first < 1;
    fail("the range '$word' ends before it starts") if $first > $last;
    return ($first + 0, $last + 0);
}

sub with_id {
    my ($job, $id, $text) = @_;
    $text =~ s/\Q$job->{name}\E/$id/g if defined $job->{name};
    return $text;
}

# The path of the log of job $id. With '*' for $id, the pattern of all logs.
sub job_log {
    my ($job, $id) = @_;
    return with_id($job, $id, $job->{log});
}

# The name of the job for the scheduler, without characters that schedulers refuse. A digest of the log's path makes it
# unique for each experiment and clone. So jobs with the same name write the same log and the same files.
sub job_name {
    my ($job) = @_;
    (my $name = basename(with_id($job, '', $job->{log}))) =~ s/\.*log$//;
    $name =~ s/[^A-Za-z0-9_-]/_/g;
    my $log = $job->{log} =~ m{^/} ? $job->{log} : getcwd() . "/$job->{log}";
    return ($name =~ /^[A-Za-z]/ ? $name : "job_$name") . '_' . digest($log);
}

# 64-bit FNV-1a, since perl-base has no module for digests.
sub digest {
    use integer;
    my $hash = 14695981039346656037;
    $hash = ($hash ^ $_) * 1099511628211 for unpack 'C*', $_[0];
    return sprintf '%016x', $hash;
}

# The bash command of job $id.
sub job_command {
    my ($job, $id) = @_;
    return join ' ', map { shell_word(with_id($job, $id, $_)) } @{ $job->{words} };
}

# Quotes a word for bash. Three kinds keep their meaning: a word that is only an operator, a redirection with its file, and
# the NAME= of NAME=value. All other words reach the command unchanged, including spaces, quotes, $ and *.
sub shell_word {
    my ($word) = @_;
    return $word if $word =~ /^(?:\|\|?|\|&|&&?|;|\(|\)|\d?>>?|&>>?|\d?<|\d?>&\d)\z/;
    return $1 . quote($2) if $word =~ /^(\d?>>?|&>>?|\d?<)([^<>|&;()]+)\z/;
    return $1 . quote($2) if $word =~ /^([A-Za-z_]\w*=)(.*)\z/s;
    return quote($word);
}

sub quote {
    my ($text) = @_;
    return $text if $text =~ m{^[\w./:=,+@%-]+\z}; # \z, since $ would accept a newline at the end
    $text =~ s/'/'\\''/g;
    return "'$text'";
}

# The bash script that runs a command and writes its log. The command runs in its own bash, so that the last lines reach the
# log even after `exit` or a syntax error. With pipefail, a failure inside a pipe is a failure of the job.
# $setup: bash lines before the command. $threads: the number of threads of the job.
sub job_script {
    my ($log, $command, $setup, $threads) = @_;
    my ($log_file, $run) = (quote($log), quote($setup . $command));
    (my $shown = $command) =~ s/\n/\n# /g;
    $shown = quote("# $shown");
    return <<"END";
exec >>$log_file </dev/null 2>&1 || exit 1
printf '%s\\n' $shown "# Started at \$(date)" '#'
bash -o pipefail -c $run
code=\$?
[ -z "\$(tail -c 1 $log_file)" ] || echo
echo "# Accounting: time=\$SECONDS threads=$threads"
echo "# Ended (code \$code) at \$(date), elapsed time \$SECONDS seconds"
exit "\$code"
END
}

# Returns how the run that wrote this log ended: 'done', 'failed', or 'incomplete' (killed, or never started).
# Also returns the last line of its output, which usually gives the reason of a failure.
sub log_state {
    my ($log) = @_;
    open my $file, '<', $log or return ('incomplete', '');
    my ($end, $output) = ('', '');
    while (my $line = <$file>) {
        chomp $line;
        $output = $line if $line =~ /^[^#]/;
        $end = $line;
    }
    close $file;
    return ('incomplete', $output) unless $end =~ /^# Ended \(code (\d+)\)/;
    return ($1 == 0 ? 'done' : 'failed', $output);
}

# Makes the folder of the log and removes the log of an earlier run, which could report success before this job starts.
sub prepare_log {
    my ($log) = @_;
    make_path(dirname($log), { error => \my $errors });
    fail("cannot make the folder of $log: " . join(', ', map { values %$_ } @$errors)) if @$errors;
    unlink $log or !-e $log or fail("cannot replace $log: $!");
    return;
}

# Prints the first three failures with the last line of their logs, then a summary as Kaldi does. $lost->{$id} says how a
# job ended that wrote no exit code.
sub report_failures {
    my ($job, $lost, @failed) = @_;
    @failed = sort { $a <=> $b } @failed;
    for my $id (@failed[0 .. ($#failed < 2 ? $#failed : 2)]) {
        my ($state, $last_line) = log_state(job_log($job, $id));
        $state = $lost->{$id} if defined $lost->{$id};
        print STDERR "$PROGRAM: ", job_log($job, $id), " $state: ", $last_line || 'no output', "\n";
    }
    my $all = $job->{last} - $job->{first} + 1;
    if ($all == 1) {
        print STDERR "$PROGRAM: job failed, log is in ", job_log($job, $job->{first}), "\n";
    } else {
        print STDERR "$PROGRAM: " . @failed . " / $all failed, log is in ", job_log($job, '*'), "\n";
    }
    return;
}

# The signals that cancel the jobs. Signals that the caller ignores (nohup, a background job) stay ignored.
sub cancelling_signals {
    return grep { ($SIG{$_} || '') ne 'IGNORE' } qw(INT TERM HUP QUIT);
}

# Adds a line to the logs of cancelled jobs. A job that has not started gets no log.
sub mark_cancelled {
    my ($signal, @logs) = @_;
    for my $log (grep { -e } @logs) {
        next unless open my $file, '>>', $log;
        print $file "# Cancelled by signal $signal\n";
        close $file;
    }
    return;
}

1;
