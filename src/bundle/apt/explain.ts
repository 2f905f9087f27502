import { NestvmError } from '../../store/error.ts'

/** What apt's messages mean for the user; undefined when nothing failed. `succeeded`: its exit status was 0. */
export function explainApt(argv: readonly string[], messages: string, succeeded: boolean): NestvmError | undefined {
  const problems = messages.split('\n').filter((line) => isProblem.test(line))
  if (succeeded && !problems.some((line) => ignoredFailure.test(line))) return undefined

  const reason = reasons.find(({ pattern }) => problems.some((line) => pattern.test(line)))
  const line = problems.find((problem) => reason?.pattern.test(problem)) ?? problems[0] ?? messages.trim()
  const said = line.replace(/^[EW]: /, '')
  const { code, message, hint } = reason ?? { code: 'APT_FAILED', message: `${argv[0]} failed`, hint: undefined }
  return new NestvmError(code, `${message}: ${said}`, { hint, details: { argv, messages: problems.slice(0, 20) } })
}

const isProblem = /^[EW]: /

/** apt-get update takes old lists where it cannot get or cannot verify new ones, and exits with 0. */
const ignoredFailure =
  /^W: (Failed to fetch|Some index files failed|GPG error|OpenPGP|An error occurred during the sig)/

interface Reason {
  code: string
  message: string
  hint?: string
  pattern: RegExp
}

/** The first that matches counts: a full disk shows as a failed download, a bad signature as one too. */
const reasons: readonly Reason[] = [
  {
    code: 'APT_BUSY',
    message: 'another apt is at work on the packages of the bundle',
    hint: 'end it, or wait for it to end',
    pattern: /Could not get lock/,
  },
  {
    code: 'NO_SPACE',
    message: 'no space left for the packages of the bundle',
    hint: 'nestvm prune, or set XDG_CACHE_HOME and XDG_DATA_HOME to a disk with more room',
    pattern: /No space left on device|enough free space|Disk quota exceeded|File too large/i,
  },
  {
    code: 'BAD_SIGNATURE',
    message: 'the package lists of the mirror are not signed by a key of the keyring',
    hint: 'apt install debian-archive-keyring to renew the keyring, or name that of the mirror in NESTVM_KEYRING',
    pattern:
      /NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|signatures? (couldn't be verified|were invalid|verification failed)|not signed|Missing key|no valid signature|Clearsigned file isn't valid|unsigned|signature verification/i,
  },
  {
    code: 'DOWNLOAD_CORRUPT',
    message: 'the mirror sent something else than its signed lists say',
    hint: 'run `nestvm setup` again later: a mirror that is being updated does this',
    pattern: /Hash Sum mismatch|unexpected size|is not valid yet|is expired/i,
  },
  {
    code: 'PACKAGE_UNAVAILABLE',
    message: 'the mirror has not all packages of the bundle',
    hint: 'set NESTVM_MIRROR to a full Debian mirror',
    pattern:
      /Unable to locate package|no installation candidate|was not found|unmet dependencies|No packages found|Can't find a source/i,
  },
  {
    code: 'MIRROR_UNREACHABLE',
    message: 'the Debian mirror cannot be reached',
    hint: 'check the network and the proxy (apt-config dump Acquire), or set NESTVM_MIRROR',
    pattern:
      /Failed to fetch|Some index files failed|does not have a Release file|no longer has a Release file|Could not (connect|resolve)|Unable to (connect|fetch)/i,
  },
]
