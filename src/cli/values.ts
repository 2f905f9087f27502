import { InvalidArgumentError } from 'commander'

/** `512`, `512M`, `2G`, `1.5g` to MiB; a bare number is MiB. */
export function parseMemory(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(k|m|g|t)?(?:i?b)?$/i.exec(text)
  const factor = { k: 1 / 1024, m: 1, g: 1024, t: 1024 * 1024 }[(match?.[2] ?? 'm').toLowerCase()]
  const mib = match && factor ? Math.ceil(Number(match[1]) * factor) : 0
  if (mib <= 0) throw new InvalidArgumentError('Use a size such as 512M or 2G.')
  return mib
}

/** `30`, `30s`, `5m`, `2h` to milliseconds; a bare number is seconds. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text)
  const factor = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match?.[2] ?? 's']
  const duration = match && factor ? Number(match[1]) * factor : 0
  // What Node's timers can count.
  if (duration <= 0 || duration > 2 ** 31 - 1) throw new InvalidArgumentError('Use a duration such as 30s or 5m.')
  return duration
}

export function parseCount(text: string): number {
  const count = Number(text)
  if (Number.isInteger(count) && count > 0 && count <= 1_000_000) return count
  throw new InvalidArgumentError('Use a whole number from 1 on.')
}

/** Collects `KEY=VALUE`; a bare KEY takes the value from this process's environment, and stays unset where that lacks it. */
export function collectEnv(text: string, before: Record<string, string>): Record<string, string> {
  const at = text.indexOf('=')
  const name = at < 0 ? text : text.slice(0, at)
  if (name === '') throw new InvalidArgumentError('Use KEY=VALUE.')
  const value = at < 0 ? process.env[name] : text.slice(at + 1)
  if (value !== undefined) return { ...before, [name]: value }
  const { [name]: _, ...others } = before
  return others
}

/** What follows `--` in a command line; commander does not tell it from other operands. */
export function afterDashes(argv: readonly string[] = process.argv): string[] | undefined {
  const at = argv.indexOf('--')
  return at < 0 ? undefined : argv.slice(at + 1)
}

/**
 * For commander, which would take the next word for the value of an option that may do without one: `run --migratable
 * alpine` names an image, and `--migratable=EPYC` a value.
 */
export function withOptionalValues(argv: readonly string[]): string[] {
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length
  return argv.map((word, index) => (index < end && word === '--migratable' ? `${word}=` : word))
}

export function collect(text: string, earlier: string[]): string[] {
  return [...earlier, text]
}
