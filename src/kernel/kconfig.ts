import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Options, Refused } from './config.ts'

/** An option's definition, as Linux's Kconfig files have it; the language: Documentation/kbuild/kconfig-language.rst. */
interface Definition {
  /** Expressions, all of which have to hold; those of the menus and conditions around it too. */
  depends: string[]
  /** Whether it can be set at all; else it is so by others, which select it. */
  prompted: boolean
}

/** Why each option is not as it was asked for, as far as the Kconfig files tell. */
export async function explainRefused(
  tree: string,
  sourceArch: string,
  refused: readonly Refused[],
  resulting: Options,
): Promise<string[]> {
  const wanted = new Set(refused.map(({ option }) => option))
  const found = new Map<string, Definition[]>()
  await walk({ tree, sourceArch, wanted, found }, 'Kconfig', [])
  return refused.map(({ option, wanted: value, got }) => {
    const why = reason(found.get(option) ?? [], resulting, value)
    return `CONFIG_${option} is ${got === 'n' ? 'not set' : got} rather than ${value}${why ? `: ${why}` : ''}`
  })
}

function reason(definitions: readonly Definition[], options: Options, wanted: string): string | undefined {
  if (definitions.length === 0) return 'this kernel has no such option'
  if (wanted === 'n') return 'another option selects it, or it cannot be turned off'
  const [nearest] = definitions.map(({ depends }) => unmet(depends, options)).sort((a, b) => a.length - b.length)
  if (nearest && nearest.length > 0) return `it needs ${nearest.join(' and ')}`
  if (definitions.every(({ prompted }) => !prompted)) return 'it cannot be chosen: other options decide it'
  return undefined
}

/** The expressions that do not hold. What is more than names, `!`, `&&`, `||` and brackets is taken to hold. */
function unmet(depends: readonly string[], options: Options): string[] {
  const parts = depends.flatMap((expression) => conjuncts(expression))
  return [...new Set(parts.filter((part) => !holds(part, options)))]
}

function holds(expression: string, options: Options): boolean {
  if (!/^[\w!&|()\s]+$/.test(expression)) return true
  const tokens = expression.match(/\w+|&&|\|\||[!()]/g) ?? []
  let at = 0
  const either = (): boolean => {
    let value = both()
    while (tokens[at] === '||') {
      at++
      const right = both()
      value = value || right
    }
    return value
  }
  const both = (): boolean => {
    let value = one()
    while (tokens[at] === '&&') {
      at++
      const right = one()
      value = value && right
    }
    return value
  }
  const one = (): boolean => {
    const token = tokens[at++]
    if (token === '!') return !one()
    if (token !== '(') return token === 'y' || token === 'm' || (options.get(token ?? '') ?? 'n') !== 'n'
    const value = either()
    at++
    return value
  }
  return either()
}

/** `A && (B || C)` to `A` and `(B || C)`. */
function conjuncts(expression: string): string[] {
  const parts = ['']
  let depth = 0
  for (const token of expression.match(/&&|./g) ?? []) {
    if (token === '(') depth++
    if (token === ')') depth--
    if (token === '&&' && depth === 0) parts.push('')
    else parts[parts.length - 1] += token
  }
  return parts.map((part) => part.trim()).filter(Boolean)
}

interface Search {
  tree: string
  sourceArch: string
  wanted: ReadonlySet<string>
  found: Map<string, Definition[]>
}

/** Reads a Kconfig file and those that it takes in, which hold under the conditions `around`. */
async function walk(search: Search, path: string, around: readonly string[]): Promise<void> {
  const text = await readFile(join(search.tree, path), 'utf8').catch(() => '')
  const blocks: string[][] = [[...around]]
  /** Where `depends on` goes: to the option, or to the menu that has just begun. */
  let depends: string[] = []
  let definition: Definition | undefined
  const inner = () => blocks.at(-1) ?? []
  for (const line of withoutHelp(text.replaceAll('\\\n', ' ').split('\n'))) {
    const [, word = '', rest = ''] = /^\s*(\w+)\s*(.*?)\s*$/.exec(line) ?? []
    if (word === 'config' || word === 'menuconfig') {
      depends = [...inner()]
      definition = { depends, prompted: false }
      if (search.wanted.has(rest)) search.found.set(rest, [...(search.found.get(rest) ?? []), definition])
    } else if (word === 'if') blocks.push([...inner(), /^!?\w+$/.test(rest) ? rest : `(${rest})`])
    else if (word === 'menu' || word === 'choice') {
      depends = [...inner()]
      definition = undefined
      blocks.push(depends)
    } else if (/^end(if|menu|choice)$/.test(word)) blocks.pop()
    else if (word === 'comment') depends = []
    else if (word === 'depends') depends.push(rest.replace(/^on\s+/, ''))
    else if (/^(bool|tristate|string|int|hex|prompt)$/.test(word) && /^["']/.test(rest)) {
      if (definition) definition.prompted = true
    } else if (word === 'source') {
      const file = rest.replace(/^["']|["']$/g, '').replaceAll('$(SRCARCH)', search.sourceArch)
      await walk(search, file, inner())
    }
  }
}

/** Help is prose, which may begin a line with any word; it ends with the first line that is indented less than its own. */
function withoutHelp(lines: readonly string[]): string[] {
  let help: number | 'begins' | undefined
  return lines.filter((line) => {
    const indent = line.replaceAll('\t', '        ').search(/\S/)
    if (help === 'begins' && indent >= 0) help = indent
    if (typeof help === 'number' && indent >= 0 && indent < help) help = undefined
    if (help !== undefined) return false
    if (/^\s*(help|---help---)\s*$/.test(line)) help = 'begins'
    return help === undefined
  })
}
