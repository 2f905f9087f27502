/** Options of Linux's configuration by their names without `CONFIG_`; one that is not set is `n`. */
export type Options = ReadonlyMap<string, string>

/** Of a `.config` or of a fragment: where an option comes twice, the later line counts. */
export function parseConfig(text: string): Options {
  const options = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [, name, value] = /^CONFIG_(\w+)=(.*?)\s*$/.exec(line) ?? []
    const [, unset] = /^# CONFIG_(\w+) is not set\s*$/.exec(line) ?? []
    if (name !== undefined && value !== undefined) options.set(name, value)
    else if (unset !== undefined) options.set(unset, 'n')
  }
  return options
}

/** The lines of a fragment that say nothing which is understood: a mistyped option would be lost without a word. */
export function strangeLines(text: string): string[] {
  const known = /^(CONFIG_\w+=(y|m|n|0x[0-9a-fA-F]+|-?\d+|"([^"\\]|\\.)*")|# CONFIG_\w+ is not set|#.*|)\s*$/
  return text.split('\n').filter((line) => !known.test(line))
}

export interface Refused {
  option: string
  wanted: string
  got: string
}

/** What was asked for and is not so in the configuration that resulted. */
export function refusedOptions(requested: Options, resulting: Options): Refused[] {
  return [...requested].flatMap(([option, wanted]) => {
    const got = resulting.get(option) ?? 'n'
    return got === wanted ? [] : [{ option, wanted, got }]
  })
}
