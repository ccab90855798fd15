"""What the adapters for LangChain and LlamaIndex share: settings, runners, memories, answers.

Generated from `namm_llm`'s table of settings; knows neither framework.
"""
