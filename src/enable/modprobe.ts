import { type FileStep, within } from './plan.ts'
import type { Seen } from './seen.ts'

/** Sorted last, so that it counts more than what others say: modprobe.d(5) reads files in the order of their names. */
const ownFile = '/etc/modprobe.d/zz-nestvm.conf'
const header = '# Written by nestvm enable; nestvm enable --undo removes it.\n'

/** The kernel takes - and _ in a module's name for the same, and y, Y and 1 for true. */
const modulePattern = (module: string) => module.replaceAll('_', '[-_]')
export const isOn = (value: string | undefined): boolean => /^[Yy1]$/.test(value ?? '')
const same = (one: string, other: string) => one === other || (isOn(one) && isOn(other)) || (isOff(one) && isOff(other))
const isOff = (value: string) => /^[Nn0]$/.test(value)

/**
 * What files of modprobe.d say a module's parameters are, the last one of a name counting; among them those of the
 * distribution, which lie elsewhere than in /etc.
 */
export function persistedOptions({ files }: Seen, module: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const [, text] of inOrder(files)) {
    for (const [, , words = ''] of text.matchAll(optionLines(module))) {
      for (const [, name = '', value = ''] of words.matchAll(/([\w-]+)=(\S+)/g)) found.set(name, value)
    }
  }
  return found
}

/**
 * The file changes after which modprobe loads a module with these parameters. What a file in /etc says otherwise is
 * changed there; what nobody says comes into a file of our own. `parameters` has names to values.
 */
export function persistOptions(
  seen: Seen,
  root: string,
  module: string,
  parameters: Readonly<Record<string, string>>,
  why: string,
): FileStep[] {
  const texts = new Map([...seen.files].filter(([path]) => path.startsWith('/etc/modprobe.d/')))
  for (const [path, text] of texts) {
    texts.set(
      path,
      text.replace(optionLines(module), (_line, start: string, words: string) => start + corrected(words, parameters)),
    )
  }
  const said = persistedOptions({ ...seen, files: new Map([...seen.files, ...texts]) }, module)
  const missing = Object.entries(parameters).filter(([name, value]) => !same(said.get(name) ?? '', value))
  if (missing.length > 0) {
    const line = `options ${module} ${missing.map(([name, value]) => `${name}=${value}`).join(' ')}\n`
    texts.set(ownFile, (texts.get(ownFile) ?? header) + line)
  }
  return [...texts].flatMap(([path, after]): FileStep[] => {
    const before = seen.files.get(path)
    return before === after ? [] : [{ kind: 'file', path: within(root, path), before, after, why }]
  })
}

function corrected(words: string, parameters: Readonly<Record<string, string>>): string {
  return words.replace(/([\w-]+)=(\S+)/g, (word, name: string, value: string) => {
    const wanted = parameters[name]
    return wanted === undefined || same(value, wanted) ? word : `${name}=${wanted}`
  })
}

/** The start of an `options` line for the module, and its words; a backslash at a line's end continues it. */
const optionLines = (module: string) =>
  new RegExp(`^([ \\t]*options[ \\t]+${modulePattern(module)}(?=[ \\t\\\\]))((?:\\\\\\n|[^\\n])*)`, 'gm')

/** modprobe reads the files of all its directories in the order of their names. */
function inOrder(files: ReadonlyMap<string, string>): [string, string][] {
  const base = (path: string) => path.slice(path.lastIndexOf('/') + 1)
  return [...files]
    .filter(([path]) => path.includes('/modprobe.d/'))
    .sort(([one], [other]) => (base(one) < base(other) ? -1 : 1))
}
