import { isCommon, isSecretName, type Kind, type Rule, rules } from './private.ts'

/** How many values of a kind there were, and in how many places. */
export type Redactions = Record<Kind, { values: number; places: number }>

/**
 * Puts names such as `<mac-1>` in the place of private values: the same one for the same value, in all texts of one
 * report, so that it stays visible what belongs together. Each text is to be learned before any is redacted: what a line
 * of one tells to be a secret is one wherever it stands.
 */
export class Redactor {
  private readonly values = new Map<Kind, Map<string, string>>()
  private readonly places = new Map<Kind, number>()
  /** Values to be looked for as they are, with their kinds. */
  private readonly known = new Map<string, Kind>()
  private knownPattern: RegExp | undefined

  /** Names a private value. What everybody's is, or too short to be told from other words, is not looked for. */
  know(kind: Kind, value: string): void {
    const least = kind === 'secret' || kind === 'serial' ? 6 : 3
    if (value.length < least || isCommon(kind, value) || this.known.has(value)) return
    this.known.set(value, kind)
    this.knownPattern = undefined
  }

  /** Remembers what in a text, or a document's texts, is private by what comes before it. */
  learn(value: unknown, name = ''): void {
    if (typeof value === 'string') {
      if (isSecretName(name)) this.know('secret', value)
      for (const { kind, pattern, when } of rules) {
        if (!lookedFor.has(kind)) continue
        for (const match of value.matchAll(pattern)) {
          const found = privatePart(match[0], match.groups)
          if (!when || when(found)) this.know(kind, found)
        }
      }
    } else if (Array.isArray(value)) {
      for (const [index, each] of value.entries()) this.learn(each, flagBefore(value[index - 1]))
    } else if (typeof value === 'object' && value !== null) {
      for (const [key, each] of Object.entries(value)) this.learn(each, key)
    }
  }

  text(text: string): string {
    const byRules = rules.reduce((rest, rule) => this.apply(rest, rule), text)
    return byRules.replace(this.knownValues(), (value) => this.pseudonym(this.known.get(value) ?? 'secret', value))
  }

  /** The same document with its strings redacted, and wholly those that are secret by their name. */
  json(value: unknown, name = ''): unknown {
    if (typeof value === 'string') return isSecretName(name) ? this.pseudonym('secret', value) : this.text(value)
    if (Array.isArray(value)) {
      // As on a command line, what follows `--password` is one.
      return value.map((each: unknown, index) => this.json(each, flagBefore(value[index - 1])))
    }
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.json(each, key)]))
  }

  counts(): Redactions {
    const of = (kind: Kind) => ({ values: this.values.get(kind)?.size ?? 0, places: this.places.get(kind) ?? 0 })
    return {
      ...{ secret: of('secret'), serial: of('serial'), uuid: of('uuid'), mac: of('mac') },
      ...{ address: of('address'), host: of('host'), user: of('user') },
    }
  }

  private apply(text: string, { kind, pattern, when }: Rule): string {
    return text.replace(pattern, (match: string, ...rest: unknown[]) => {
      const value = privatePart(match, rest.at(-1))
      if (isDone(value) || isCommon(kind, value) || (when && !when(value))) return match
      const at = match.lastIndexOf(value)
      return match.slice(0, at) + this.pseudonym(kind, value) + match.slice(at + value.length)
    })
  }

  private pseudonym(kind: Kind, value: string): string {
    // Addresses are the same in either case, and a name that is long is another's only by it.
    const plain = value.toLowerCase()
    const values = this.values.get(kind) ?? new Map<string, string>()
    this.values.set(kind, values)
    const name = values.get(plain) ?? `<${kind}-${values.size + 1}>`
    values.set(plain, name)
    this.places.set(kind, (this.places.get(kind) ?? 0) + 1)
    return name
  }

  /** The longest first, since a short one may be a part of it. */
  private knownValues(): RegExp {
    if (this.knownPattern) return this.knownPattern
    const values = [...this.known.keys()].sort((a, b) => b.length - a.length)
    const either = values.map((value) => value.replaceAll(/\W/g, '\\$&')).join('|')
    this.knownPattern = values.length > 0 ? new RegExp(`(?<![\\w<])(?:${either})(?!\\w)`, 'g') : /(?!)/g
    return this.knownPattern
  }
}

/** Of the kinds of which a value does not look like one. */
const lookedFor: ReadonlySet<Kind> = new Set<Kind>(['secret', 'serial', 'host', 'user'])

/** The group of a match that is the value. */
function privatePart(match: string, groups: unknown): string {
  const named = typeof groups === 'object' && groups !== null ? Object.values(groups) : []
  const value: unknown = named.find((text) => text !== undefined)
  return typeof value === 'string' ? value : match
}

/** It was redacted by an earlier rule. */
function isDone(value: string): boolean {
  return /<[a-z]+-\d+>/.test(value) && !/\w/.test(value.replaceAll(/<[a-z]+-\d+>/g, ''))
}

function flagBefore(word: unknown): string {
  return typeof word === 'string' && /^--?[\w-]+$/.test(word) ? word : ''
}
